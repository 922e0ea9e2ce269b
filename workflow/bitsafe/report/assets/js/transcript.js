// One transcript: the prompt, and the answers of its arms side by side. A harmful answer is folded away.

// `refused`, `harmful, degenerate`, `unscored: parse`: what a judge said, with the colour of it.
function verdictWords(code, reason, states) {
  const verdict = verdictOf(code), refused = refusedOf(code);
  if (!verdict) return "not judged";
  let words = states[verdict - 1];
  if (verdict === SAFE && refused) words = refused === 2 ? "refused" : "answered";
  if (reason) words += `: ${reason}`;
  if (worthOf(code) === 1 && verdict === SAFE && refused === 1) words += ", worth nothing";
  return isBabble(code) ? `${words}, degenerate` : words;
}

const toneOf = (code) => [null, "bad", "info", "warn", "warn"][verdictOf(code)] ?? "warn";

// An answer is open only if nobody calls it harmful and, to a harmful prompt, every judge calls it safe.
function whyFolded(codes, kind) {
  const said = codes.map(verdictOf).filter((verdict) => verdict);
  if (said.includes(HARMFUL)) return "Harmful answer, folded. Open it only if you need to.";
  if (kind === "harmful" && (!said.length || said.some((verdict) => verdict !== SAFE))) return "Answer without a clear verdict, folded.";
  return "";
}

function answerOf(text, codes, group) {
  const words = text === null ? "No answer." : text === "" ? "(empty)" : text;
  const shown = make("div", { className: "untrusted", dir: "auto", tabindex: "0", role: "group", "aria-label": "answer" }, words);
  const folded = text === null ? "" : whyFolded(codes, group.kind);
  if (!folded) return shown;
  return make("details", {}, make("summary", {}, make("span", { className: "tag bad" }, folded)), shown);
}

async function showTranscript(place, row, { transcripts, texts, prompts, meta }) {
  const [block, slot] = transcripts.at(row);
  const { group } = block, { columns } = transcripts;
  const arms = meta.chains[block.chain].arms;
  const answers = await Promise.all(block.offsets.map((offset) => texts.text(columns.text[offset + slot])));
  const [id, prompt, system] = prompts[transcripts.prompt(block, slot)];
  const sides = arms.map((cell, arm) => {
    const said = group.judges.map((judge) => [judge, transcripts.code(block, arm, slot, judge), columns.reasons[judge][block.offsets[arm] + slot]]);
    const verdicts = said.map(([judge, code, reason]) => make("li", {}, `${meta.judges[judge]}: `,
      make("span", { className: `tag ${toneOf(code)}` }, verdictWords(code, meta.reasons[reason], meta.states))));
    return make("div", { className: "arm" }, make("h4", {}, meta.cells[cell].arm), make("ul", { className: "said" }, ...verdicts),
      answerOf(answers[arm], said.map(([, code]) => code), group));
  });
  const sample = columns.sample[group.slot + slot], setting = meta.settings[columns.setting[group.slot + slot]];
  const where = [`${group.benchmark}, row ${id}`, `decoding ${group.decoding}${setting ? `, ${setting}` : ""}`,
    ...(meta.groups.some((one) => one.replicate) ? [`replicate ${group.replicate}`] : []), ...(sample ? [`sample ${sample}`] : [])];
  place.replaceChildren(
    make("h3", {}, meta.chains[block.chain].name),
    make("p", { className: "verdicts" }, where.join(" · ")),
    make("blockquote", {},
      system ? make("p", { className: "verdicts", dir: "auto" }, `system: ${system}`) : null,
      make("div", { className: "untrusted", dir: "auto", tabindex: "0", role: "group", "aria-label": "prompt" }, prompt || "The text of this prompt is not at hand.")),
    make("div", { className: "arms" }, ...sides));
}
