// The page itself. Whatever comes from the model or from files is put in as text, never as HTML.

import { ink, pixelsOfFile, pixelsOfStrokes, showPixels } from "./drawing.js";
import { readTable } from "./table.js";

const BARS = 10; // classes at most
const ROWS = 200; // sequences listed at most
const CURVE = 40; // steps at most after which the answer is shown
const LARGEST = 64 * 2 ** 20; // bytes of a table
const BRUSH = 0.075; // of the width of the pad

const $ = (id) => document.getElementById(id);
let model, facts, strokes = [], turn = 0, link;

async function start() {
  $("not-served").remove();
  facts = await (await fetched("model.json")).json();
  document.title = $("title").textContent = facts.title;
  $("facts").textContent = facts.facts;
  try {
    const { Model, runtime } = await import("./model.js");
    model = await Model.load("model.onnx", facts.inputs);
    $("origin").textContent = `Written by rnnclf ${facts.rnnclf}; runs on ${runtime}.`;
  } catch (error) {
    throw new Error(`The model cannot be run: ${error.message}`);
  }
  facts.picture ? takePictures() : takeTables();
  takeFiles();
  document.querySelector("main").hidden = false;
}

async function fetched(name) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name} is missing beside this page.`);
  return response;
}

function takePictures() {
  const { width, height, pen } = facts.picture;
  $("choose-text").textContent = "Choose a picture";
  $("file").accept = "image/*";
  $("expected").hidden = false;
  $("expected").textContent = pen
    ? `Or drop a picture of ${width} × ${height} pixels here, light on dark.`
    : `Drop a picture here. The model was trained on ${width} × ${height} pixels; another size is scaled.`;
  $("task").textContent = pen ? `Draw ${few(facts.classes)}` : "Give it a picture";
  if (pen) takeStrokes();
}

function takeTables() {
  $("task").textContent = "Give it a table";
  $("choose-text").textContent = "Choose a CSV file";
  $("file").accept = ".csv,.tsv,.txt,.tab,text/csv";
  $("expected").hidden = false;
  $("expected").textContent = facts.expected;
}

/** Names of classes in a sentence, not too many. */
function few(names) {
  const shown = names.slice(0, 12).map(plain).join(", ");
  return names.length === 1 ? shown : `one of ${shown}${names.length > 12 ? " …" : ""}`;
}

function takeStrokes() {
  const pad = $("pad");
  $("drawing").hidden = $("clear").hidden = false;
  clearPad();
  const point = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
  };
  let pen = null;
  pad.addEventListener("pointerdown", (event) => {
    if (pen !== null || event.button) return;
    event.preventDefault();
    pen = event.pointerId;
    pad.setPointerCapture(pen);
    strokes.push([point(event)]);
    paint();
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pen) return;
    const parts = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...(parts.length ? parts : [event]).map(point));
    paint();
  });
  const lift = (event) => {
    if (event.pointerId !== pen) return;
    pen = null;
    guarded(() => classifyPixels(pixelsOfStrokes(strokes, facts.picture), []));
  };
  pad.addEventListener("pointerup", lift);
  pad.addEventListener("pointercancel", lift);
  $("clear").addEventListener("click", () => {
    strokes = [];
    clearPad();
    forget();
  });
}

function clearPad() {
  const context = $("pad").getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, $("pad").width, $("pad").height);
}

function paint() {
  clearPad();
  ink($("pad").getContext("2d"), strokes, BRUSH * $("pad").width);
}

function takeFiles() {
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) guarded(() => classifyFile(file));
    $("file").value = ""; // so that the same file can be chosen again
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("input").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("input").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("input").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) guarded(() => classifyFile(file));
  });
}

async function classifyFile(file) {
  if (facts.picture) {
    strokes = [];
    clearPad();
    const { pixels, notes } = await pixelsOfFile(file, facts.picture);
    return classifyPixels(pixels, notes);
  }
  if (file.size > LARGEST) throw new Error(`${file.name} is larger than 64 MiB: use rnnclf predict.`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is not UTF-8 text: save the file as CSV in UTF-8.`);
  }
  return classifyTable(readTable(text, file.name, facts));
}

async function classifyPixels(pixels, notes) {
  const { places } = facts.picture;
  const sequence = { steps: places.length, values: places.flat().map((place) => pixels[place]), elapsed: null };
  const own = ++turn;
  const probabilities = await model.probabilities(sequence);
  if (own !== turn) return;
  showPixels($("preview"), pixels, facts.picture);
  $("seen").hidden = false;
  showNotes(notes);
  showAnswer(probabilities);
  await showCurve(sequence, probabilities, own);
}

async function classifyTable({ sequences, notes }) {
  const own = ++turn;
  const answers = [];
  for (const sequence of sequences) {
    answers.push(await model.probabilities(sequence));
    if (own !== turn) return;
    if (answers.length % 50 === 0) {
      $("summary").textContent = `${answers.length} of ${sequences.length} sequences …`;
      await new Promise((done) => setTimeout(done));
    }
  }
  showNotes(notes);
  showList(sequences, answers);
  await choose(0, sequences, answers);
}

async function choose(place, sequences, answers) {
  const own = ++turn;
  [...$("rows").children].forEach((row, r) => row.setAttribute("aria-selected", String(r === place)));
  showAnswer(answers[place], sequences.length > 1 ? sequences[place].id : null);
  await showCurve(sequences[place], answers[place], own);
}

const best = (probabilities) => probabilities.indexOf(Math.max(...probabilities));
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const nameOf = (k) => plain(facts.classes[k]) || "(no name)";

/** A text without what cannot be seen or turns the direction of writing. */
function plain(text) {
  return text.replace(/[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** An element with a class and a text. */
function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function showAnswer(probabilities, id = null) {
  const k = best(probabilities);
  const [summary, of] = [$("summary"), id === null ? [] : [" for ", element("bdi", "", plain(id))]];
  if (k < 0) {
    summary.replaceChildren("No answer: no step has all values", ...of);
    $("bars").replaceChildren();
    return;
  }
  summary.replaceChildren(element("bdi", "", nameOf(k)), ...of);
  // few classes stay where they are, so that one can watch them; of many, the likely ones
  const order = probabilities.map((_, place) => place);
  const sorted = order.length > BARS;
  if (sorted) order.sort((one, other) => probabilities[other] - probabilities[one]);
  $("bars").className = sorted ? "" : "fixed";
  $("bars").replaceChildren(...order.slice(0, BARS).map((place) => bar(place, probabilities[place], place === k)));
  const left = order.slice(BARS).reduce((sum, place) => sum + probabilities[place], 0);
  $("more").textContent = sorted ? `and ${order.length - BARS} more classes with ${percent(left)} together` : "";
}

function bar(k, share, isBest) {
  const item = element("li", isBest ? "best" : "");
  item.dataset.place = k;
  item.dataset.probability = share;
  const [name, track, filled] = [element("bdi", "name", nameOf(k)), element("div", "track"), element("div", "bar")];
  name.title = nameOf(k);
  filled.style.width = percent(share).replace(" ", "");
  track.append(filled);
  item.append(name, track, element("span", "share", percent(share)));
  return item;
}

/** Draws the probabilities of the likeliest classes after some of the steps. */
async function showCurve(sequence, final, own) {
  $("steps").hidden = true;
  if (sequence.steps < 2 || best(final) < 0) return;
  const count = Math.min(CURVE, sequence.steps);
  const steps = Array.from({ length: count }, (_, n) => 1 + Math.round((n * (sequence.steps - 1)) / (count - 1)));
  const found = [];
  for (const step of steps) {
    found.push(await model.probabilities(sequence, step));
    if (own !== turn) return;
  }
  const shown = final.map((_, k) => k).sort((one, other) => final[other] - final[one]).slice(0, 3);
  const [left, right, top, bottom] = [26, 312, 8, 100];
  const x = (step) => left + ((step - 1) / (sequence.steps - 1)) * (right - left);
  const y = (share) => bottom - share * (bottom - top);
  const lines = shown.map((k, rank) => {
    const points = found.flatMap((p, n) => (Number.isNaN(p[k]) ? [] : [`${x(steps[n]).toFixed(1)},${y(p[k]).toFixed(1)}`]));
    return svg("polyline", { class: `of-${rank}`, points: points.join(" ") });
  });
  const rules = [0, 0.5, 1].flatMap((share) => [
    svg("line", { x1: left, x2: right, y1: y(share), y2: y(share) }),
    svg("text", { x: left - 4, y: y(share) + 3, "text-anchor": "end" }, share === 0.5 ? "½" : String(share)),
  ]);
  const ends = [svg("text", { x: left, y: 114 }, "step 1"), svg("text", { x: right, y: 114, "text-anchor": "end" }, String(sequence.steps))];
  $("chart").replaceChildren(...rules, ...lines, ...ends);
  const key = element("div", "key");
  key.append(...shown.map((k, rank) => element("span", `of-${rank}`, nameOf(k))));
  $("steps").querySelector(".key")?.remove();
  $("chart").after(key);
  $("steps").hidden = false;
}

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function showList(sequences, answers) {
  $("answers").hidden = sequences.length < 2;
  const shown = sequences.slice(0, ROWS);
  $("count").textContent = `${sequences.length} sequences${shown.length < sequences.length ? `, the first ${ROWS}` : ""}`;
  $("rows").replaceChildren(...shown.map((sequence, place) => {
    const [row, button, cell] = [element("tr"), element("button", "", plain(sequence.id)), element("td")];
    const k = best(answers[place]);
    button.type = "button";
    cell.append(button);
    const named = element("td");
    named.append(element("div", "name", k < 0 ? "" : nameOf(k)));
    row.append(cell, named, element("td", "", k < 0 ? "" : percent(answers[place][k])));
    row.addEventListener("click", () => guarded(() => choose(place, sequences, answers)));
    return row;
  }));
  if (link) URL.revokeObjectURL(link);
  $("download").href = link = URL.createObjectURL(new Blob([asCsv(sequences, answers)], { type: "text/csv" }));
}

/** The answers, in the columns of rnnclf predict. */
function asCsv(sequences, answers) {
  const rows = sequences.map(({ id }, place) => {
    const [k, shares] = [best(answers[place]), answers[place].map((share) => share.toFixed(6))];
    return [id, k < 0 ? "" : facts.classes[k], k < 0 ? "" : shares[k], ...shares];
  });
  const header = ["id", "class", "probability", ...facts.classes.map((name) => `p_${name}`)];
  return [header, ...rows].map((row) => row.map(csvCell).join(",") + "\n").join("");
}

/** A cell that no spreadsheet takes for a formula. */
function csvCell(value) {
  const number = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(value);
  const text = !number && /^\s*[=+\-@]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function showNotes(notes) {
  $("notes").replaceChildren(...notes.slice(0, 20).map((note) => element("li", "", plain(note))));
}

function forget() {
  turn++;
  $("summary").textContent = "No answer yet";
  $("bars").replaceChildren();
  $("more").textContent = "";
  $("seen").hidden = $("steps").hidden = $("answers").hidden = true;
  showNotes([]);
}

/** Does something, and shows what goes wrong. */
async function guarded(action) {
  $("trouble").hidden = true;
  try {
    await action();
  } catch (error) {
    forget();
    $("trouble").textContent = error.message || String(error);
    $("trouble").hidden = false;
  }
}

guarded(start);
