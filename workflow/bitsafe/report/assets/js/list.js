// A list box of any length: only the rows in sight are in the page. Arrow keys, Page, Home and End move the choice.

const ROW_HEIGHT = 58;
const TALLEST = 16_000_000; // browsers lay nothing out much below this; a longer list says where it ends

class LongList {
  constructor(box, rowOf, chosen) {
    Object.assign(this, { box, rowOf, chosen, rows: new Int32Array(0), active: -1 });
    this.inner = make("div", { role: "presentation", className: "rows" });
    box.append(this.inner);
    box.addEventListener("scroll", () => this.later(), { passive: true });
    box.addEventListener("keydown", (event) => this.pressed(event));
    this.inner.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.choose(Number(option.dataset.place));
    });
    new ResizeObserver(() => this.later()).observe(box);
  }

  show(rows) {
    this.rows = rows;
    this.shown = Math.min(rows.length, Math.floor(TALLEST / ROW_HEIGHT));
    this.inner.style.height = `${this.shown * ROW_HEIGHT}px`;
    this.box.scrollTop = 0;
    this.active = -1;
    this.draw();
    this.choose(rows.length ? 0 : -1, false);
  }

  later() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }

  draw() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - 4);
    const to = Math.min(this.shown, from + Math.ceil((this.box.clientHeight || 400) / ROW_HEIGHT) + 8);
    const options = [];
    for (let place = from; place < to; place++) options.push(this.option(place));
    this.inner.replaceChildren(...options);
    if (this.active >= from && this.active < to) this.box.setAttribute("aria-activedescendant", `transcript-${this.active}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  option(place) {
    const option = make("div", {
      role: "option", id: `transcript-${place}`, "aria-selected": String(place === this.active),
      "aria-setsize": this.rows.length, "aria-posinset": place + 1, "data-place": place, className: "row",
    }, ...this.rowOf(this.rows[place]));
    option.style.top = `${place * ROW_HEIGHT}px`;
    return option;
  }

  choose(place, scroll = true) {
    this.active = place;
    if (place >= 0 && scroll) {
      const top = place * ROW_HEIGHT, { scrollTop, clientHeight } = this.box;
      if (top < scrollTop) this.box.scrollTop = top;
      else if (top + ROW_HEIGHT > scrollTop + clientHeight) this.box.scrollTop = top + ROW_HEIGHT - clientHeight;
    }
    this.draw();
    this.chosen(place < 0 ? null : this.rows[place]);
  }

  pressed(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_HEIGHT) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.shown) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.shown - 1, this.active + moves[event.key])));
  }
}
