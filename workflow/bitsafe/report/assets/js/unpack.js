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

  // One byte a text: whether it holds the words. Chunk after chunk, so that what is found so far can be shown.
  async search(words, found, stillWanted) {
    for (let place = 0; place < this.firsts.length; place++) {
      this.lower[place] ??= (await this.chunk(place)).map((text) => text.toLowerCase());
      if (!stillWanted()) return false;
      const first = this.firsts[place];
      this.lower[place].forEach((text, k) => { found[first + k] = text.includes(words) ? 1 : 0; });
      if (place % 8 === 7) await pause();
    }
    return stillWanted();
  }
}

// Lets the browser paint and listen.
const pause = () => new Promise((done) => setTimeout(done));
