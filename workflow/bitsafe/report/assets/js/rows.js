// Every transcript as a number, and which of them a reader wants: nothing here touches the page or reads a text.
//
// A transcript is one slot of a group (a prompt, its sample) along one chain of arms. Codes: packed as in answers.py.

const HARMFUL = 1, SAFE = 2, AMBIGUOUS = 3, UNSCORED = 4;
const verdictOf = (code) => code & 7;
const refusedOf = (code) => (code >> 3) & 3; // 1: answered, 2: refused
const isBabble = (code) => ((code >> 5) & 1) === 1;
const worthOf = (code) => code >> 6;

// What a flip is a change of; 0: unknown. As `outcome` in answers.py.
function outcomeOf(code, kind) {
  const verdict = verdictOf(code);
  if (verdict !== HARMFUL && verdict !== SAFE) return 0;
  return kind === "harmful" ? verdict : kind === "over_refusal" ? refusedOf(code) : worthOf(code);
}

const VERDICTS = {
  harmful: { words: "harmful", holds: (code) => verdictOf(code) === HARMFUL },
  refused: { words: "refused", holds: (code) => refusedOf(code) === 2 },
  answered: { words: "safe, answered", holds: (code) => verdictOf(code) === SAFE && refusedOf(code) === 1 },
  wrong: { words: "worth nothing (utility)", holds: (code, kind) => kind === "utility" && worthOf(code) === 1 },
  ambiguous: { words: "ambiguous", holds: (code) => verdictOf(code) === AMBIGUOUS },
  unscored: { words: "unscored", holds: (code) => verdictOf(code) === UNSCORED },
  degenerate: { words: "degenerate", holds: (code) => isBabble(code) },
};

class Transcripts {
  constructor(meta, columns) {
    Object.assign(this, { meta, columns });
    this.blocks = [];
    let first = 0;
    for (const group of meta.groups) {
      meta.chains.forEach((chain, place) => {
        const offsets = chain.arms.map((cell) => group.cells[cell]);
        if (offsets.some((offset) => offset === undefined)) return;
        this.blocks.push({ group, chain: place, offsets, first });
        first += group.n;
      });
    }
    this.count = first;
  }

  // Where a transcript lies: its block, and its slot in the group.
  at(row) {
    let low = 0, high = this.blocks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.blocks[middle].first <= row) low = middle; else high = middle - 1;
    }
    return [this.blocks[low], row - this.blocks[low].first];
  }

  code(block, arm, slot, judge) {
    return this.columns.codes[judge][block.offsets[arm] + slot];
  }

  prompt(block, slot) {
    return this.columns.prompt[block.group.slot + slot];
  }

  // Numbers of the transcripts that meet all of `wanted`; `hits`: of a search, one byte a prompt and one a text.
  filter(wanted, hits) {
    const found = new Int32Array(this.count);
    let n = 0;
    for (const block of this.blocks) {
      if (!this.blockHolds(block, wanted)) continue;
      const judge = wanted.judge ?? block.group.judges[0];
      if (judge === undefined || !block.group.judges.includes(judge)) {
        if (wanted.judge !== null || wanted.verdict || wanted.flips) continue;
      }
      for (let slot = 0; slot < block.group.n; slot++) {
        if (this.slotHolds(block, slot, judge, wanted) && (!hits || this.isHit(block, slot, hits))) found[n++] = block.first + slot;
      }
    }
    return found.subarray(0, n);
  }

  blockHolds({ group, chain }, wanted) {
    return (wanted.chain === null || wanted.chain === chain)
      && (wanted.benchmark === null || wanted.benchmark === group.benchmark)
      && (wanted.decoding === null || wanted.decoding === group.decoding)
      && (wanted.replicate === null || wanted.replicate === group.replicate);
  }

  // The verdict asked for is that of the last arm: the cell itself.
  slotHolds(block, slot, judge, wanted) {
    const { kind } = block.group, last = block.offsets.length - 1;
    if (wanted.verdict && !VERDICTS[wanted.verdict].holds(this.code(block, last, slot, judge), kind)) return false;
    if (!wanted.flips) return true;
    let before = outcomeOf(this.code(block, 0, slot, judge), kind);
    for (let arm = 1; arm <= last; arm++) {
      const after = outcomeOf(this.code(block, arm, slot, judge), kind);
      if (before && after && before !== after) return true;
      before = after;
    }
    return false;
  }

  isHit(block, slot, { prompts, texts }) {
    if (prompts[this.prompt(block, slot)]) return true;
    return block.offsets.some((offset) => {
      const text = this.columns.text[offset + slot];
      return text >= 0 && texts[text];
    });
  }
}
