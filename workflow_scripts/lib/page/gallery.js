// The script of the gallery. It shows what stands in the page's own JSON and sprite sheets, as text and pixels alone.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const { channels, colours, tile, across, generated } = data;
const total = data.id.length;
const PER_PAGE = matchMedia("(max-width: 63.99rem)").matches ? 40 : 120;
const KEPT = 120; // decoded sheets in memory, of one byte a pixel

const view = {
  zoom: Math.max(1, Math.round(64 / tile)),
  alone: null, // the channel that is shown alone
  looks: channels.map((channel) => ({ on: true, colour: channel.colour, low: 0, high: channel.high })),
};
const panes = {
  made: { page: 0, found: [] },
  real: { page: 0, found: [] },
};
let selected = null; // { pane, place } of the selected image

function element(name, text, properties) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

//----------------------------------------------------------------------------------------------------------------------
// Pixels

const planes = new Map(); // "channel-sheet" -> promise of grey values

function plane(channel, sheet) {
  const key = `${channel}-${sheet}`;
  let found = planes.get(key);
  if (found) planes.delete(key); // to the end: the first is the longest unused
  else found = decoded(document.getElementById(`sheet-${key}`).textContent);
  planes.set(key, found);
  if (planes.size > KEPT) planes.delete(planes.keys().next().value);
  return found;
}

async function decoded(text) {
  const image = new Image();
  image.src = `data:image/webp;base64,${text}`;
  await image.decode();
  const canvas = element("canvas", undefined, { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const colour = context.getImageData(0, 0, image.width, image.height).data;
  const grey = new Uint8Array(colour.length / 4);
  for (let at = 0; at < grey.length; at += 1) grey[at] = colour[4 * at];
  return { grey, width: image.width };
}

// Grey values of one channel of an image, t x t.
async function pixels(index, channel) {
  const { grey, width } = await plane(channel, Math.floor(index / across ** 2));
  const place = index % across ** 2;
  const left = (place % across) * tile;
  const top = Math.floor(place / across) * tile;
  const out = new Uint8Array(tile * tile);
  for (let row = 0; row < tile; row += 1) {
    const from = (top + row) * width + left;
    out.set(grey.subarray(from, from + tile), row * tile);
  }
  return out;
}

// Turn a training image as the generated one lies: the inverse of mirroring (from 4 on) and then turning left.
function turnedBack(values, turn) {
  let out = values;
  const at = (row, column) => row * tile + column;
  for (let quarter = 0; quarter < turn % 4; quarter += 1) {
    const from = out;
    out = new Uint8Array(from.length);
    for (let row = 0; row < tile; row += 1)
      for (let column = 0; column < tile; column += 1) out[at(row, column)] = from[at(tile - 1 - column, row)];
  }
  if (turn < 4) return out;
  const mirrored = new Uint8Array(out.length);
  for (let row = 0; row < tile; row += 1)
    for (let column = 0; column < tile; column += 1) mirrored[at(row, column)] = out[at(row, tile - 1 - column)];
  return mirrored;
}

// Draw an image: all channels that are on in their colours, or one of them in grey.
async function paint(canvas, index, turn, only) {
  const job = {};
  canvas.job = job; // a later call for the same canvas wins
  await null; // until it is on the page; of pages that were turned at once, nothing is decoded
  if (!canvas.isConnected) return;
  const alone = only ?? view.alone;
  const wanted = channels.map((_, number) => number).filter((n) => (alone === null ? view.looks[n].on : n === alone));
  const parts = await Promise.all(wanted.map((number) => pixels(index, number)));
  if (canvas.job !== job) return;
  const picture = new ImageData(tile, tile);
  const out = picture.data;
  for (let at = 3; at < out.length; at += 4) out[at] = 255;
  wanted.forEach((number, place) => {
    const look = view.looks[number];
    const [red, green, blue] = alone === null ? colours[look.colour] : [255, 255, 255];
    const span = Math.max(1, look.high - look.low);
    const values = turn ? turnedBack(parts[place], turn) : parts[place];
    for (let at = 0; at < values.length; at += 1) {
      const bright = Math.min(1, Math.max(0, (values[at] - look.low) / span));
      out[4 * at] += bright * red;
      out[4 * at + 1] += bright * green;
      out[4 * at + 2] += bright * blue;
    }
  });
  canvas.width = tile;
  canvas.height = tile;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

//----------------------------------------------------------------------------------------------------------------------
// Names

const placeName = (place) => `repeat ${data.places[place].repeat}, fold ${data.places[place].fold}`;
const labelsOf = (index) => data.labels[index].map((label) => data.classes[label]).join(", ") || "no class";
const number = (value) => (value === null ? "unknown" : value.toFixed(2));
const many = (count, one, several) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;

//----------------------------------------------------------------------------------------------------------------------
// Filters

const AGREEMENT = { "all agrees (1)": [1, 1], "0.8 or more": [0.8, 1], "0.5 to 0.8": [0.5, 0.7999], "below chance (0.5)": [0, 0.4999] };
const sets = [...new Set(data.sources.map((source) => source.set))];
const FILTERS = [
  ["kind", "kind", ["both", "generated", "real, train part"]],
  ["label", "class", ["any class", ...data.classes]],
  ["set", "synthetic set", ["any set", ...sets]],
  ["place", "fold", ["any fold", ...data.places.map((_, place) => placeName(place))]],
  ["baseline", "agreement, baseline", ["any", ...Object.keys(AGREEMENT)]],
  ...(data.judged ? [["judge", "agreement, judge", ["any", ...Object.keys(AGREEMENT)]]] : []),
  ["closeness", "nearest training image", ["any distance", "suspiciously close", "not close"]],
  ["order", "order of generated", ["as drawn", "closest to training first", "least agreement first"]],
];
const chosen = {}; // by filter: the number of the choice, 0 for any

function makeFilters() {
  const box = document.getElementById("filters");
  for (const [name, title, choices] of FILTERS) {
    const select = element("select", undefined, { id: `filter-${name}` });
    choices.forEach((choice, place) => select.append(element("option", choice, { value: String(place) })));
    chosen[name] = 0;
    select.addEventListener("change", () => {
      chosen[name] = Number(select.value);
      filter();
    });
    const label = element("label", title);
    label.append(select);
    box.append(label);
  }
}

function within(value, choice) {
  if (!choice) return true;
  const [low, high] = Object.values(AGREEMENT)[choice - 1];
  return value !== null && value >= low && value <= high;
}

function matches(index) {
  if (chosen.label && !data.labels[index].includes(chosen.label - 1)) return false;
  if (index >= generated) {
    // A real image is of no synthetic set; of agreement and distance nothing is known.
    if (chosen.kind === 1 || chosen.baseline || chosen.judge || chosen.closeness) return false;
    return !chosen.place || data.in[index - generated].includes(chosen.place - 1);
  }
  const source = data.sources[data.source[index]];
  if (chosen.kind === 2) return false;
  if (chosen.set && source.set !== sets[chosen.set - 1]) return false;
  if (chosen.place && source.place !== chosen.place - 1) return false;
  if (chosen.closeness && Boolean(data.authentic[index]) !== (chosen.closeness === 2)) return false;
  return within(data.baseline[index], chosen.baseline) && within(data.judge[index], chosen.judge);
}

function filter() {
  const found = [];
  for (let index = 0; index < total; index += 1) if (matches(index)) found.push(index);
  panes.made.found = found.filter((index) => index < generated);
  panes.real.found = found.filter((index) => index >= generated);
  const by = [null, data.ratio, data.baseline][chosen.order];
  if (by) panes.made.found.sort((one, other) => (by[one] ?? Infinity) - (by[other] ?? Infinity) || one - other);
  const [made, real] = [panes.made.found.length, panes.real.found.length];
  document.getElementById("count").textContent =
    made + real ? `${many(made, "generated image", "generated images")}, ${many(real, "real image", "real images")}`
      : "No image has all of this: choose less.";
  panes.made.page = 0;
  panes.real.page = 0;
  close();
}

//----------------------------------------------------------------------------------------------------------------------
// Grids

function showPane(name) {
  const pane = panes[name];
  const box = document.getElementById(name);
  box.hidden = !pane.found.length;
  const start = pane.page * PER_PAGE;
  const shown = pane.found.slice(start, start + PER_PAGE);
  box.querySelector(".bar .quiet").textContent =
    `${(start + 1).toLocaleString("en")} to ${(start + shown.length).toLocaleString("en")} of ${pane.found.length.toLocaleString("en")}`;
  box.querySelector(".back").disabled = !pane.page;
  box.querySelector(".on").disabled = start + PER_PAGE >= pane.found.length;
  box.querySelector(".grid").replaceChildren(...shown.map((index, place) => tileOf(name, index, start + place)));
}

function tileOf(name, index, place) {
  const button = element("button", undefined, { type: "button", className: "tile", tabIndex: place % PER_PAGE ? -1 : 0 });
  const copy = index < generated && !data.authentic[index];
  if (copy) button.classList.add("copy");
  button.setAttribute("aria-label", `${index < generated ? "generated" : "real"}: ${labelsOf(index)}${copy ? ", close to a training image" : ""}`);
  button.title = labelsOf(index);
  button.dataset.index = String(index);
  const canvas = element("canvas", undefined, { width: tile, height: tile });
  button.append(canvas);
  button.addEventListener("click", () => select(name, place));
  paint(canvas, index, 0);
  return button;
}

function repaint() {
  showLegend();
  for (const button of document.querySelectorAll(".tile")) paint(button.firstChild, Number(button.dataset.index), 0);
  showDetail();
}

function turnPage(name, by) {
  const last = Math.ceil(panes[name].found.length / PER_PAGE) - 1;
  panes[name].page = Math.max(0, Math.min(last, panes[name].page + by));
  showPane(name);
}

function setZoom(by) {
  document.documentElement.style.setProperty("--bar", `${100 * data.bar.fraction}%`);
  view.zoom = Math.max(1, Math.min(6, view.zoom + by));
  document.documentElement.style.setProperty("--side", `${Math.max(24, tile * view.zoom)}px`);
}

//----------------------------------------------------------------------------------------------------------------------
// The selected image

function select(name, place) {
  const pane = panes[name];
  if (place < 0 || place >= pane.found.length) return;
  selected = { pane: name, place };
  const page = Math.floor(place / PER_PAGE);
  if (page !== pane.page) {
    pane.page = page;
    showPane(name);
  }
  mark();
  showDetail();
  const button = document.getElementById(name).querySelectorAll(".tile")[place % PER_PAGE];
  button.focus({ preventScroll: true });
  button.scrollIntoView({ block: "nearest" });
}

function mark() {
  for (const name of Object.keys(panes)) {
    document.getElementById(name).querySelectorAll(".tile").forEach((button, at) => {
      const is = selected?.pane === name && panes[name].page * PER_PAGE + at === selected.place;
      button.setAttribute("aria-pressed", String(is));
      if (selected?.pane === name) button.tabIndex = is ? 0 : -1;
    });
  }
}

function close() {
  selected = null;
  showPane("made");
  showPane("real");
  showDetail();
}

function beside(index) {
  const out = [[index, index < generated ? "generated" : "real, train part", 0]];
  if (index >= generated) return out;
  if (data.nearest[index] >= 0) out.push([data.nearest[index], "nearest training image", data.turn[index]]);
  if (data.reference[index] >= 0 && data.reference[index] !== null) out.push([data.reference[index], "made from this real image, which may lie otherwise", 0]);
  return out;
}

function picture(index, title, turn) {
  const figure = element("figure");
  const canvas = element("canvas", undefined, { width: tile, height: tile });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", title);
  paint(canvas, index, turn);
  const caption = element("figcaption", title);
  caption.append(element("br"), element("span", labelsOf(index), { className: "quiet" }));
  const alone = element("div", undefined, { className: "alone" });
  channels.forEach((channel, at) => {
    const one = element("div");
    const small = element("canvas", undefined, { width: tile, height: tile });
    paint(small, index, turn, at);
    one.append(small, element("span", channel.name));
    alone.append(one);
  });
  figure.append(canvas, element("div", undefined, { className: "scale" }), ...(channels.length > 1 ? [alone] : []), caption);
  return figure;
}

function factsOf(index) {
  if (index >= generated) return [["class", labelsOf(index)], ["train part of", data.in[index - generated].map(placeName).join("; ")]];
  const source = data.sources[data.source[index]];
  const judges = data.judged ? `; of the independent judge ${number(data.judge[index])}` : "";
  const without = source.without.length ? `, without ${source.without.join(", ")}, which are real` : "";
  const turn = data.turn[index] ? "; it is shown turned or mirrored, as the generated one lies" : "";
  return [
    ["asked for", labelsOf(index)],
    ["synthetic set", `${source.set}, ${placeName(source.place)}`],
    ["agreement", `of the baseline ${number(data.baseline[index])}${judges} (chance is 0.5)`],
    ["distance", `${number(data.ratio[index])} of that between training images${without}${turn}`],
    ...(data.nearest[index] < 0 ? [["nearest", "not in this gallery"]] : []),
  ];
}

function showDetail() {
  const box = document.getElementById("detail");
  const index = selected && panes[selected.pane].found[selected.place];
  box.hidden = selected === null;
  const room = document.getElementById("room");
  room.classList.toggle("two", panes.made.found.length > 0 && panes.real.found.length > 0);
  room.classList.toggle("open", selected !== null);
  if (selected === null) return;
  document.getElementById("name").textContent = data.id[index];
  document.getElementById("large").replaceChildren(...beside(index).map((shown) => picture(...shown)));
  const facts = factsOf(index).flatMap(([name, text]) => [element("dt", name), element("dd", text)]);
  document.getElementById("facts").replaceChildren(...facts);
}

// Where the nearest training image is among those that the filters leave, go to it.
function goToNearest() {
  const index = selected && panes[selected.pane].found[selected.place];
  if (index === null || index >= generated) return;
  select("real", panes.real.found.indexOf(data.nearest[index]));
}

//----------------------------------------------------------------------------------------------------------------------
// Channels

function makeChannels() {
  const box = document.getElementById("channels");
  box.replaceChildren();
  channels.forEach((channel, at) => {
    const look = view.looks[at];
    const line = element("div", undefined, { className: "channel" });
    const on = element("input", undefined, { type: "checkbox", checked: look.on, id: `on-${at}` });
    const name = element("label", `${at + 1} ${channel.name}`, { htmlFor: on.id });
    const colour = element("select", undefined, { id: `colour-${at}` });
    colour.setAttribute("aria-label", `colour of ${channel.name}`);
    for (const choice of Object.keys(colours)) colour.append(element("option", choice, { value: choice, selected: choice === look.colour }));
    const tint = () => line.style.setProperty("--mark", `rgb(${colours[look.colour].join(" ")})`);
    tint();
    on.addEventListener("change", () => { look.on = on.checked; repaint(); });
    colour.addEventListener("change", () => { look.colour = colour.value; tint(); repaint(); });
    line.append(on, name, colour, range(channel.name, look, "low", at), range(channel.name, look, "high", at));
    box.append(line);
  });
  showLegend();
}

// Names of the channels that are shown, in their colours; light enough for black.
function showLegend() {
  const shown = channels.map((_, at) => at).filter((at) => (view.alone === null ? view.looks[at].on : at === view.alone));
  const names = shown.map((at) => {
    const name = element("em", channels[at].name);
    const parts = view.alone === null ? colours[view.looks[at].colour] : [255, 255, 255];
    name.style.color = `rgb(${parts.map((part) => Math.round(part + (255 - part) * 0.3)).join(" ")})`;
    return name;
  });
  document.getElementById("legend").replaceChildren(...names, element("span", `Bar: ${data.bar.length}`));
}

function range(name, look, end, at) {
  const line = element("label", end, { className: "range" });
  const input = element("input", undefined, { type: "range", min: 0, max: 255, value: look[end], id: `${end}-${at}` });
  input.setAttribute("aria-label", `${end} end of the contrast of ${name}`);
  const told = element("span", String(look[end]));
  input.addEventListener("input", () => {
    look[end] = Number(input.value);
    told.textContent = input.value;
    repaint();
  });
  line.append(input, told);
  return line;
}

function reset() {
  view.alone = null;
  view.looks = channels.map((channel) => ({ on: true, colour: channel.colour, low: 0, high: channel.high }));
  makeChannels();
  repaint();
}

//----------------------------------------------------------------------------------------------------------------------
// Keys

function columnsOf(name) {
  const tops = [...document.getElementById(name).querySelectorAll(".tile")].map((button) => button.offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
}

function step(key) {
  const name = selected?.pane ?? (panes.made.found.length ? "made" : "real");
  if (selected === null) return select(name, panes[name].page * PER_PAGE);
  const columns = columnsOf(name);
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  return select(name, selected.place + by);
}

function showAlone(channel) {
  view.alone = channel;
  repaint();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    selected = null;
    mark();
    return showDetail();
  }
  if (event.target.closest?.("select, input, textarea")) return;
  const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : null;
  if (event.key.startsWith("Arrow")) step(event.key);
  else if (event.key === "PageDown" || event.key === "PageUp") {
    const by = event.key === "PageDown" ? 1 : -1;
    for (const name of selected ? [selected.pane] : Object.keys(panes)) turnPage(name, by);
    if (selected) select(selected.pane, panes[selected.pane].page * PER_PAGE);
  } else if (digit === 0) showAlone(null);
  else if (digit !== null && digit <= channels.length) showAlone(digit - 1);
  else if (event.key === "+" || event.key === "=") setZoom(1);
  else if (event.key === "-" || event.key === "−") setZoom(-1);
  else if (event.key === "n") goToNearest();
  else return;
  event.preventDefault();
}

for (const name of Object.keys(panes)) {
  document.querySelector(`#${name} .back`).addEventListener("click", () => turnPage(name, -1));
  document.querySelector(`#${name} .on`).addEventListener("click", () => turnPage(name, 1));
}
document.getElementById("close").addEventListener("click", () => { selected = null; mark(); showDetail(); });
document.getElementById("smaller").addEventListener("click", () => setZoom(-1));
document.getElementById("larger").addEventListener("click", () => setZoom(1));
document.getElementById("reset").addEventListener("click", reset);
document.addEventListener("keydown", onKey);
if (PER_PAGE < 100) document.getElementById("look").open = false;
setZoom(0);
makeFilters();
makeChannels();
filter();
