// The three contrasts: the difference with its interval, and beside it what moved at all, with the noise floor.

const CONTRASTS = {
  total: "Total: against full precision",
  quantization: "Quantization by itself: against full precision trained on the same data",
  repair: "Repair: against the same cell before its patch",
};

function drawContrasts(panel) {
  const place = emptied("chart-contrasts");
  for (const [name, title] of Object.entries(CONTRASTS)) {
    const rows = panel.contrasts[name].map((row) => ({ ...row, name: panel.cells[row.cell].short, full: panel.cells[row.cell].name, control: panel.cells[row.cell].control }));
    if (!rows.length) continue;
    place.append(make("h3", {}, title));
    const [left, right] = sideBySide(place, "pair wide");
    drawDifferences(left, rows);
    drawMoved(right, rows, panel.noise);
  }
  if (!place.children.length) said(place, "No cell could be compared.");
}

const findingColour = (row) => FINDING[row.finding] ?? "var(--info)";
const findingSymbol = (row) => FINDING_SYMBOL[row.finding] ?? d3.symbolCircle;
const rowMargin = (rows) => Math.min(250, 14 + 6.3 * Math.max(...rows.map((row) => row.name.length)));

function drawDifferences(place, rows) {
  headed(place, "Change of ASR, in points");
  const at = (row) => 100 * row.delta;
  const reach = 100 * Math.max(0.05, ...rows.flatMap((r) => [r.delta, r.delta_low, r.delta_high, r.mde].map((x) => Math.abs(x ?? 0))));
  const width = widthOf(place, 620), margin = Math.min(rowMargin(rows), 0.52 * width);
  plotted(place, "Change of ASR by cell with its interval; the table of contrasts has the numbers", {
    width, height: 48 + 20 * rows.length, marginLeft: margin, marginTop: 8, marginBottom: 36,
    x: { label: "← safer · change · less safe →", domain: [-reach, reach], ticks: 5, nice: true, grid: true, labelAnchor: "center", labelArrow: "none" },
    y: { type: "band", domain: rows.map((row) => row.name), label: null, tickSize: 0, tickFormat: (name) => shortened(name, Math.floor(margin / 6.1)) },
    marks: [
      Plot.barX(rows.filter((row) => row.mde !== null), { x1: (r) => -100 * r.mde, x2: (r) => 100 * r.mde, y: "name", fill: BAND, insetTop: 1, insetBottom: 1 }),
      Plot.ruleX([0], { stroke: INK }),
      Plot.link(rows.filter((row) => row.delta_low !== null), { x1: (r) => 100 * r.delta_low, x2: (r) => 100 * r.delta_high, y: "name", stroke: findingColour, strokeWidth: 3, strokeOpacity: 0.45 }),
      Plot.dot(rows, { x: at, y: "name", r: 4, symbol: { value: findingSymbol, scale: null }, stroke: findingColour, fill: (r) => (r.control ? "var(--card)" : findingColour(r)) }),
      Plot.tip(rows, Plot.pointer({ x: at, y: "name", title: contrastWords, fill: "var(--card)", stroke: LINE })),
    ],
  });
  const found = { rose: "rose", fell: "fell", none: "no change shown, or not tested", unresolved: "not resolvable: too many answers cannot be read" };
  const seen = Object.entries(found).filter(([finding]) => finding !== "unresolved" || rows.some((row) => row.finding === finding));
  legend(place, seen.map(([finding, words]) => ({ colour: findingColour({ finding }), symbol: FINDING_SYMBOL[finding] ?? "circle", words })));
  if (rows.some((row) => row.mde !== null)) said(place, "Shaded: differences below the mde, which this run may have missed. Hollow: a control.");
}

const contrastWords = (row) => [
  row.full,
  `${signed(row.delta)} points${bounds(row.delta_low, row.delta_high)}`,
  `Holm p ${row.p_holm === null ? "–" : row.p_holm.toPrecision(2)}, mde ${row.mde === null ? "–" : (100 * row.mde).toFixed(1)}`,
  `${row.n_flipped ?? "–"} of ${row.n_at_risk ?? "–"} at-risk pairs flipped`,
  `${percent(row.changed_share)} of the texts changed`,
].join("\n");

function drawMoved(place, rows, noise) {
  headed(place, "What moved at all, in %");
  const flipped = (row) => (row.n_at_risk ? (100 * row.n_flipped) / row.n_at_risk : null);
  const width = widthOf(place, 620), margin = Math.min(rowMargin(rows), 0.52 * width);
  plotted(place, "At-risk pairs that flipped and answers whose text changed, by cell; the table of contrasts has the numbers", {
    width, height: 48 + 20 * rows.length, marginLeft: margin, marginTop: 8, marginBottom: 36, marginRight: 14,
    x: { label: "share of pairs", domain: [0, 100], grid: true, labelAnchor: "center", labelArrow: "none" },
    y: { type: "band", domain: rows.map((row) => row.name), label: null, tickSize: 0, tickFormat: (name) => shortened(name, Math.floor(margin / 6.1)) },
    marks: [
      ...(noise ? [dashed(100 * noise.changed), dashed(100 * noise.moved, "var(--c1)")] : []),
      Plot.dot(rows.filter((row) => row.changed_share !== null), { x: (r) => 100 * r.changed_share, y: "name", r: 5.5, symbol: "square2", stroke: "var(--c0)", fill: "var(--card)", strokeWidth: 1.4 }),
      Plot.dot(rows.filter((row) => flipped(row) !== null), { x: flipped, y: "name", r: 3.2, stroke: "var(--c1)", fill: "var(--c1)" }),
    ],
  });
  legend(place, [
    { colour: "var(--c1)", symbol: "circle", words: "at-risk pairs that flipped" },
    { colour: "var(--c0)", symbol: "square2", hollow: true, words: "answers whose text changed" },
  ]);
  said(place, noise
    ? `Dashed, the noise floor (full precision against itself): ${percent(noise.changed)} of its texts changed, ${percent(noise.moved)} of its verdicts.`
    : "Full precision was not answered a second time: the noise floor is not known.");
}
