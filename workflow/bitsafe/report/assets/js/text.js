// Elements made of text, never of markup: whatever an answer holds, it is shown as it is.

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const percent = (rate, digits = 1) => (rate === null || rate === undefined ? "–" : `${(100 * rate).toFixed(digits)} %`);
const signed = (rate) => (rate === null ? "–" : `${rate < 0 ? "−" : "+"}${Math.abs(100 * rate).toFixed(1)}`);
const bounds = (low, high) =>
  low === null || low === undefined || high === null || high === undefined
    ? "" : ` [${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]`.replaceAll("-", "−");
const number = (value) => value.toLocaleString("en");
const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
const shortened = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
