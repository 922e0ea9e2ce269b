// What the charts share: colours of the page, which follow its light or dark theme, and how wide a chart may be.

const INK = "var(--ink)", FAINT = "var(--faint)", LINE = "var(--line)", BAND = "var(--band)";
const PALETTE = [0, 1, 2, 3, 4, 5].map((k) => `var(--c${k})`);
const SYMBOLS = ["circle", "diamond2", "square2", "triangle2", "star", "cross", "wye"];
const FINDING = { rose: "var(--bad)", fell: "var(--good)", unresolved: "var(--warn)" };
const FINDING_SYMBOL = { rose: d3.symbolTriangle2, fell: d3.symbolDiamond2, unresolved: d3.symbolTimes };
const STYLE = { background: "none", color: "inherit", fontSize: "12px", fontFamily: "inherit", overflow: "visible" };

const cycle = (list, place) => list[place % list.length];
const measured = (cell) => cell.asr !== null && cell.asr !== undefined;
const plainCells = (panel) => panel.cells.filter((cell) => !cell.patched);

// A figure's width: that of its place on the page.
const widthOf = (place, most) => Math.max(260, Math.min(most, place.clientWidth - 2));

function plotted(place, described, options) {
  const chart = Plot.plot({ style: STYLE, ...options });
  const drawing = chart.tagName === "svg" ? chart : [...chart.querySelectorAll("svg")].at(-1);
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", described);
  for (const part of drawing.querySelectorAll("[aria-label]")) { // an image has one name, and its parts none
    part.dataset.mark = part.getAttribute("aria-label");
    part.removeAttribute("aria-label");
  }
  place.append(chart);
  return chart;
}

function emptied(id) {
  const place = element(id);
  place.replaceChildren();
  return place;
}

// Two places beside each other, both there before either is drawn: a chart is as wide as its place.
function sideBySide(place, className) {
  const sides = [make("div"), make("div")];
  place.append(make("div", { className }, ...sides));
  return sides;
}

const said = (place, words) => place.append(make("p", { className: "note" }, words));
const headed = (place, words) => place.append(make("h4", { className: "charted" }, words));

// A legend of marks: a symbol in its colour, and its words.
function legend(place, items) {
  const list = make("ul", { className: "legend" });
  for (const { colour, symbol, words, hollow } of items) {
    const mark = Plot.plot({
      width: 16, height: 16, margin: 0, axis: null, style: STYLE, x: { domain: [-1, 1] }, y: { domain: [-1, 1] },
      marks: [Plot.dot([[0, 0]], { symbol, r: 4.5, stroke: colour, fill: hollow ? "var(--card)" : colour })],
    });
    mark.setAttribute("aria-hidden", "true");
    for (const part of mark.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
    list.append(make("li", {}, mark, words));
  }
  place.append(list);
}

const dashed = (x, stroke = INK) => Plot.ruleX([x], { stroke, strokeDasharray: "4 3", strokeWidth: 1 });
