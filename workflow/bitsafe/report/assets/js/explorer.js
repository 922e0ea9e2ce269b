// The transcript explorer: its controls, its list, and the one transcript that is read.

async function readExplorer() {
  const meta = readJson("explorer-data");
  const judges = meta.judges.map((_, place) => place);
  const columns = { codes: [], reasons: [] };
  [columns.prompt, columns.setting, columns.sample, columns.text] = await Promise.all([
    unpackedNumbers("column-prompt", Int32Array), unpackedNumbers("column-setting", Uint16Array),
    unpackedNumbers("column-sample", Uint16Array), unpackedNumbers("column-text", Int32Array),
  ]);
  columns.codes = await Promise.all(judges.map((k) => unpackedNumbers(`column-code${k}`, Uint8Array)));
  columns.reasons = await Promise.all(judges.map((k) => unpackedNumbers(`column-reason${k}`, Uint16Array)));
  const prompts = await unpackedJson("prompts");
  return { meta, prompts, transcripts: new Transcripts(meta, columns), texts: new Texts(meta.chunks) };
}

function fillControls({ meta, transcripts }) {
  const distinct = (key) => [...new Set(meta.groups.map((group) => group[key]))];
  const chains = new Set(transcripts.blocks.map((block) => block.chain));
  options("chain", meta.chains.map((chain, place) => [place, chain.name]).filter(([place]) => chains.has(place)));
  options("benchmark", distinct("benchmark").map((name) => [name, name]));
  options("decoding", distinct("decoding").map((name) => [name, name]));
  options("replicate", distinct("replicate").map((k) => [k, `replicate ${k}`]));
  options("judge", meta.judges.map((name, place) => [place, name]));
  options("verdict", Object.entries(VERDICTS).map(([name, { words }]) => [name, words]));
}

// A choice of one is no choice, and not shown.
function options(name, items) {
  element(`filter-${name}`).append(...items.map(([value, words]) => make("option", { value }, words)));
  element(`filter-${name}`).closest("label").hidden = items.length < 2;
}

function wantedNow() {
  const value = (name) => element(`filter-${name}`).value || null;
  const number = (name) => (value(name) === null ? null : Number(value(name)));
  return {
    chain: number("chain"), benchmark: value("benchmark"), decoding: value("decoding"), replicate: number("replicate"),
    judge: number("judge"), verdict: value("verdict"), flips: element("filter-flips").checked,
  };
}

function rowParts(row, { transcripts, prompts, meta }) {
  const [block, slot] = transcripts.at(row);
  const wanted = element("filter-judge").value;
  const judge = wanted === "" ? block.group.judges[0] : Number(wanted);
  const [id, prompt] = prompts[transcripts.prompt(block, slot)];
  const said = judge === undefined ? [] : block.offsets.map((_, arm) => {
    const code = transcripts.code(block, arm, slot, judge);
    return make("span", { className: `tag ${toneOf(code)}` }, verdictWords(code, "", meta.states));
  });
  const path = said.flatMap((tag, arm) => (arm ? [" → ", tag] : [tag]));
  return [
    make("span", { className: "asked", dir: "auto" }, shortened(prompt.replace(/\s+/g, " "), 160) || id),
    make("span", { className: "path" }, make("span", { className: "cell" }, meta.chains[block.chain].short), make("span", {}, ...path)),
  ];
}

async function startExplorer() {
  if (!element("explorer-data")) return;
  const data = await readExplorer();
  const detail = element("transcript"), status = element("found");
  fillControls(data);
  let turn = 0, latest = 0;
  const list = new LongList(element("transcript-list"), (row) => rowParts(row, data), async (row) => {
    const mine = ++latest;
    if (row === null) return detail.replaceChildren(make("p", { className: "note" }, "No transcript meets this choice."));
    await pause(); // the list first
    if (mine !== latest) return;
    const made = make("div");
    await showTranscript(made, row, data);
    if (mine === latest) detail.replaceChildren(...made.childNodes);
  });

  const show = (hits, more = "") => {
    const rows = data.transcripts.filter(wantedNow(), hits);
    list.show(rows);
    status.textContent = `${number(rows.length)} of ${counted(data.transcripts.count, "transcript")}${more}`;
  };

  async function refresh() {
    const mine = ++turn, words = element("filter-search").value.trim().toLowerCase();
    if (!words) {
      list.box.removeAttribute("aria-busy");
      return show(null);
    }
    const prompts = data.prompts.map(([, prompt]) => prompt.toLowerCase().includes(words));
    const hits = { prompts, texts: new Uint8Array(data.meta.texts) };
    if (!data.texts.searched) show(hits, "; searching the answers …");
    if (await data.texts.search(words, hits.texts, () => mine === turn)) {
      show(hits);
      list.box.removeAttribute("aria-busy");
    }
  }

  for (const control of document.querySelectorAll("#filters select, #filters input[type=checkbox]")) control.addEventListener("change", refresh);
  let typed = null;
  element("filter-search").addEventListener("input", () => {
    list.box.setAttribute("aria-busy", "true");
    clearTimeout(typed);
    typed = setTimeout(refresh, 60);
  });
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("filters").addEventListener("reset", () => setTimeout(refresh));
  show(null);
  data.texts.prepare();
  element("explorer").hidden = false;
}
