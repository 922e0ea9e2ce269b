// Packed data of the page: gzip and base64 in elements that hold no script, unpacked by the browser when first needed.

const element = (id) => document.getElementById(id);
const readJson = (id) => JSON.parse(element(id).textContent);

async function unpacked(id) {
  const coded = atob(element(id).textContent.trim());
  const bytes = new Uint8Array(coded.length);
  for (let k = 0; k < coded.length; k++) bytes[k] = coded.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const unpackedJson = async (id) => JSON.parse(new TextDecoder().decode(await unpacked(id)));
const unpackedNumbers = async (id, Kind) => new Kind(await unpacked(id));

// The answers' texts, a chunk at a time; each chunk is unpacked once.
class Texts {
  constructor(firsts) {
    this.firsts = firsts;
    this.chunks = firsts.map(() => null);
    this.lower = firsts.map(() => null);
  }

  chunkOf(number) {
    let low = 0, high = this.firsts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.firsts[middle] <= number) low = middle; else high = middle - 1;
    }
    return low;
  }

  async chunk(place) {
    this.chunks[place] ??= unpackedJson(`texts-${place}`);
    return this.chunks[place];
  }

  async text(number) {
    if (number < 0) return null;
    const place = this.chunkOf(number);
    return (await this.chunk(place))[number - this.firsts[place]];
  }

  // Whether every text was unpacked for a search before.
  get searched() {
    return this.lower.every((chunk) => chunk !== null);
  }

  // The texts of a chunk in small letters as one string, which is searched much faster than each by itself.
  async lowered(place) {
    if (this.lower[place] === null) {
      const kept = await (this.chunks[place] ?? unpackedJson(`texts-${place}`)); // not kept twice
      const texts = kept.map((text) => text.toLowerCase());
      const starts = new Int32Array(texts.length + 1);
      texts.forEach((text, k) => { starts[k + 1] = starts[k] + text.length + 1; });
      this.lower[place] = { all: texts.join("\u0000"), starts }; // no text holds it: it would be shown as a picture
    }
    return this.lower[place];
  }

  // Unpack all of it for searches, a chunk whenever the browser has nothing else to do.
  prepare(place = 0) {
    if (place === this.firsts.length) return;
    const whenIdle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50)); // Safari has none
    whenIdle(async () => { await this.lowered(place); this.prepare(place + 1); });
  }

  // One byte a text: whether it holds the words. The page stays alive meanwhile; false if it is not wanted any more.
  async search(words, found, stillWanted) {
    let rested = performance.now();
    for (let place = 0; place < this.firsts.length; place++) {
      const { all, starts } = this.lower[place] ?? await this.lowered(place);
      for (let at = all.indexOf(words), k = 0; at >= 0; at = all.indexOf(words, starts[k + 1])) {
        while (starts[k + 1] <= at) k++;
        found[this.firsts[place] + k] = 1;
      }
      if (performance.now() - rested < 80) continue;
      await pause();
      rested = performance.now();
      if (!stillWanted()) return false;
    }
    return stillWanted();
  }
}

// Lets the browser paint and listen.
const pause = () => new Promise((done) => setTimeout(done));
