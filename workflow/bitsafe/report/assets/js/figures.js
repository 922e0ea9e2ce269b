// The figures of one panel: ASR beside what a safe model costs, ASR by bits, and the matrix of cells.

const stageOf = (cell) => (cell.patched ? cell.stage : cell.method === "full" ? "full precision" : "quantized");

function stagesOf(panel) {
  const stages = [...new Set(panel.cells.map(stageOf))];
  return ["full precision", "quantized", ...stages].filter((name, k, all) => all.indexOf(name) === k && stages.includes(name));
}

function stageMark(panel, stages, name) {
  if (name === "full precision") return { colour: INK, symbol: "circle" };
  const place = stages.filter((stage) => stage !== "full precision").indexOf(name);
  return { colour: cycle(PALETTE, place), symbol: cycle(SYMBOLS, place) };
}

const wordsOf = (cell) => `${cell.name}\nASR ${percent(cell.asr)}${bounds(cell.asr_low, cell.asr_high)}${cell.unresolved ? ", not resolvable" : ""}`;

// ASR upwards, utility or over-refusal to the right; an arrow leads from a cell before its patch to the cell after it.
function drawTradeoff(panel) {
  const place = emptied("chart-tradeoff");
  const stages = stagesOf(panel);
  const marks = new Map(stages.map((name) => [name, stageMark(panel, stages, name)]));
  const controls = new Set(panel.cells.filter((cell) => cell.control).map((cell) => cell.stage));
  legend(place, stages.map((name) => ({
    ...marks.get(name), hollow: controls.has(name),
    words: name === "full precision" || name === "quantized" ? name : `after ${name}${controls.has(name) ? " (control)" : ""}`,
  })));
  const [left, right] = sideBySide(place, "pair");
  drawAgainst(left, panel, "over_refusal", "over-refusal", marks);
  drawAgainst(right, panel, "utility", "utility", marks);
}

function drawAgainst(place, panel, metric, title, marks) {
  headed(place, `ASR and ${title}`);
  const cells = panel.cells.filter((cell) => measured(cell) && cell[metric]);
  if (!cells.length) return said(place, `${title} was not measured.`);
  const at = (cell) => 100 * cell[metric].value, asr = (cell) => 100 * cell.asr;
  const moved = cells.filter((cell) => cell.before !== null && cells.includes(panel.cells[cell.before]));
  const before = (cell) => panel.cells[cell.before];
  const words = (cell) => `${wordsOf(cell)}\n${title} ${percent(cell[metric].value)}${bounds(cell[metric].low, cell[metric].high)}`;
  plotted(place, `ASR against ${title}, a mark a cell; the table of scores has the numbers`, {
    width: widthOf(place, 560), height: 340, marginLeft: 44, marginBottom: 40, grid: true,
    x: { label: `${title} (%) ${metric === "utility" ? "· right is better" : "· left is better"}`, nice: true, labelAnchor: "center", labelArrow: "none" },
    y: { label: "ASR (%) · lower is better", domain: [0, 100], labelArrow: "none" },
    marks: [
      Plot.link(cells, { x: at, y1: (c) => 100 * c.asr_low, y2: (c) => 100 * c.asr_high, stroke: (c) => marks.get(stageOf(c)).colour, strokeOpacity: 0.3, strokeWidth: 3, filter: (c) => c.asr_low !== null }),
      Plot.arrow(moved, { x1: (c) => at(before(c)), y1: (c) => asr(before(c)), x2: at, y2: asr, stroke: FAINT, strokeWidth: 1, strokeOpacity: 0.75, headLength: 7, insetEnd: 6, insetStart: 5, bend: 8 }),
      ...[...marks].map(([name, mark]) => Plot.dot(cells.filter((c) => stageOf(c) === name), { x: at, y: asr, r: 4.5, symbol: mark.symbol, stroke: mark.colour, fill: (c) => (c.control ? "var(--card)" : mark.colour), strokeWidth: 1.4 })),
      Plot.tip(cells, Plot.pointer({ x: at, y: asr, title: words, fill: "var(--card)", stroke: LINE })),
    ],
  });
}

// ASR over the effective bits of the file, a line a method, a facet a kind of data; each begins at its full precision:
// fine-tuned on the same data where the method fine-tunes, plain where it calibrates.
function drawBits(panel, risks) {
  const place = emptied("chart-bits");
  const methods = [...new Set(plainCells(panel).filter((cell) => cell.method !== "full").map((cell) => cell.method))];
  const shown = risks.filter((risk) => plainCells(panel).some((cell) => cell.risk === risk.name && cell.method !== "full" && measured(cell)));
  if (!shown.length) return said(place, "No quantized cell was measured.");
  const mark = (method) => ({ colour: cycle(PALETTE, methods.indexOf(method)), symbol: cycle(SYMBOLS, methods.indexOf(method)) });
  legend(place, [{ colour: INK, symbol: "circle", words: "full precision" }, ...methods.map((method) => ({ ...mark(method), words: method }))]);
  const grid = make("div", { className: "facets" });
  place.append(grid);
  const places = shown.map(() => make("div"));
  grid.append(...places);
  shown.forEach((risk, k) => drawBitsOf(places[k], panel, risk, methods, mark));
}

function drawBitsOf(place, panel, risk, methods, mark) {
  headed(place, risk.title);
  const quantized = plainCells(panel).filter((cell) => cell.risk === risk.name && cell.method !== "full" && measured(cell));
  const beginning = (cell) => panel.cells[cell.reference];
  const full = [...new Set(quantized.map(beginning).filter((cell) => cell && measured(cell)))];
  const cells = [...full, ...quantized];
  const bits = (cell) => cell.effective_bits ?? cell.bits, asr = (cell) => 100 * cell.asr;
  const colour = (cell) => (cell.method === "full" ? INK : mark(cell.method).colour);
  const lines = methods.map((method) => {
    const own = quantized.filter((cell) => cell.method === method);
    return [method, [...full.filter((cell) => own.some((one) => beginning(one) === cell)), ...own].sort((a, b) => bits(b) - bits(a))];
  });
  const drawn = lines.filter(([, line]) => line.length);
  plotted(place, `ASR by effective bits, ${risk.title}; the table of scores has the numbers`, {
    width: widthOf(place, 420), height: 250, marginLeft: 44, marginBottom: 38, marginRight: 12, grid: true,
    x: { type: "log", base: 2, domain: [18, 1.8], ticks: [16, 8, 4, 3, 2], tickFormat: String, label: "effective bits a weight", labelAnchor: "center", labelArrow: "none" },
    y: { label: "ASR (%)", domain: [0, 100], labelArrow: "none" },
    marks: [
      ...full.map((cell) => Plot.ruleY([asr(cell)], { stroke: INK, strokeDasharray: "4 3", strokeOpacity: 0.6 })),
      Plot.ruleX(cells, { x: bits, y1: (c) => 100 * c.asr_low, y2: (c) => 100 * c.asr_high, stroke: colour, strokeOpacity: 0.35, strokeWidth: 3, filter: (c) => c.asr_low !== null }),
      ...drawn.map(([method, line]) => Plot.lineY(line, { x: bits, y: asr, stroke: mark(method).colour, strokeWidth: 1.3 })),
      ...methods.map((method) => Plot.dot(cells.filter((c) => c.method === method), { x: bits, y: asr, r: 4, symbol: mark(method).symbol, stroke: mark(method).colour, fill: (c) => (c.unresolved ? "var(--card)" : mark(method).colour) })),
      Plot.dot(full, { x: bits, y: asr, r: 4, stroke: INK, fill: INK }),
      Plot.tip(cells, Plot.pointer({ x: bits, y: asr, title: (c) => `${wordsOf(c)}\n${bits(c).toFixed(2)} effective bits`, fill: "var(--card)", stroke: LINE })),
    ],
  });
}

// The matrix: a row a method, its data and patch; a column a bit-width. What is not there is said, never filled.
function drawMatrix(panel) {
  const place = emptied("chart-matrix");
  const rows = [...new Set(panel.cells.map((cell) => cell.row))];
  const bits = [...new Set(panel.cells.map((cell) => cell.bits))].sort((a, b) => b - a);
  const known = new Set(panel.cells.map((cell) => `${cell.row} ${cell.bits}`));
  const absent = rows.flatMap((row) => bits.filter((bit) => !known.has(`${row} ${bit}`)).map((bit) => ({ row, bits: bit })));
  const done = panel.cells.filter(measured), missing = panel.cells.filter((cell) => !measured(cell));
  const shade = (cell) => `color-mix(in oklab, var(--heat) ${Math.round(100 * cell.asr)}%, var(--cool))`;
  const margin = Math.min(230, Math.max(90, 6.6 * Math.max(...rows.map((row) => row.length))));
  plotted(place, "The matrix of cells by ASR; the tables of scores and cells have the numbers and reasons", {
    width: widthOf(place, margin + 110 * bits.length), height: 46 + 24 * rows.length, marginLeft: margin, marginTop: 34, marginBottom: 4,
    x: { type: "band", domain: bits, axis: "top", label: null, tickFormat: (bit) => `${bit} bits`, tickSize: 0 },
    y: { type: "band", domain: rows, label: null, tickSize: 0 },
    marks: [
      Plot.text(absent, { x: "bits", y: "row", text: () => "·", fill: FAINT }),
      Plot.cell(done, { x: "bits", y: "row", fill: { value: shade, scale: null }, inset: 1, rx: 3 }),
      Plot.cell(missing, { x: "bits", y: "row", fill: "none", stroke: "var(--warn)", strokeDasharray: "3 2", inset: 1.5, rx: 3 }),
      Plot.text(done, { x: "bits", y: "row", text: (c) => `${(100 * c.asr).toFixed(1)}${c.unresolved ? " ?" : ""}`, fill: (c) => (c.asr > 0.55 ? "var(--on-heat)" : INK), fontVariant: "tabular-nums" }),
      Plot.text(missing, { x: "bits", y: "row", text: (c) => (c.reason.startsWith("not run") ? "not run" : "no numbers"), fill: "var(--warn)" }),
      Plot.tip(panel.cells, Plot.pointer({ x: "bits", y: "row", title: (c) => (measured(c) ? `${wordsOf(c)}\n${c.finding}` : `${c.name}\n${shortened(c.reason, 160)}`), fill: "var(--card)", stroke: LINE })),
    ],
  });
  said(place, `ASR in %. ${absent.length ? "· : not in this run. " : ""}? : too many answers cannot be read. ${missing.length ? "Dashed: asked for, and without numbers; the reasons are in the table of cells." : ""}`);
}
