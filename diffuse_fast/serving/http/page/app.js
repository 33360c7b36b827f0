// The page: one request at a time, its samples as they form.

import { Latency, Occupancy, duration, read } from "/page/charts.js";
import { Form } from "/page/form.js";
import { Gallery } from "/page/gallery.js";
import { draw } from "/page/stream.js";

const $ = (id) => document.getElementById(id);
const EMPTY = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

let form, running;
const latency = new Latency($("latency"), $("latency-now"));
const occupancy = new Occupancy($("occupancy"), $("occupancy-now"));
const gallery = new Gallery((how) => { form.use(how); $("draw").focus(); });

async function start() {
  const models = (await (await fetch("/v1/models")).json()).data;
  form = new Form(models.filter((model) => model.value_range && (model.shape.length === 2 || (model.shape.length === 3 && [1, 3].includes(model.shape[0])))));
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function tile(i) {
  const item = document.createElement("li");
  item.dataset.state = "waiting";
  const image = Object.assign(document.createElement("img"), { className: "sample", src: EMPTY, alt: `Sample ${i + 1} is being drawn` });
  const bar = Object.assign(document.createElement("progress"), { max: 1, value: 0 });
  bar.setAttribute("aria-label", `Sample ${i + 1}`);
  item.append(image, bar);
  return item;
}

function named(body, i) {
  const labels = body.class_label;
  const label = Array.isArray(labels) ? labels[i] : labels;
  const names = form.label?.class_names;
  return label === undefined ? `Sample ${i + 1}` : `Sample ${i + 1}, class ${names ? names[label] : label}`;
}

function seen(event, tiles, body) {
  if (event.type === "error") {
    if (event.index === undefined || event.index === null) throw new Error(event.error.message);
    const failed = Object.assign(document.createElement("span"), { className: "failed", textContent: event.error.message });
    tiles[event.index].querySelector("progress")?.remove();
    tiles[event.index].append(failed);
    return;
  }
  const item = tiles[event.index];
  const src = `data:image/png;base64,${event.b64_json}`;
  if (event.type === "image_generation.partial_image") {
    item.dataset.state = "forming";
    item.querySelector("img").src = src;
    item.querySelector("progress").value = event.step / event.steps;
    return;
  }
  item.dataset.state = "done";
  event.recipe.sample.seed = body.seedText ?? event.recipe.sample.seed;
  const sample = { src, alt: named(body, event.index), recipe: event.recipe };
  item.replaceChildren(gallery.button(sample));
  gallery.add(sample);
}

async function submit(event) {
  event.preventDefault();
  if (running || !form) return;
  fail("");
  const text = form.body();
  const body = { ...JSON.parse(text), seedText: $("seed").value.trim() || undefined }; // digits that a number may not hold
  const tiles = Array.from({ length: body.n }, (_, i) => tile(i));
  $("tiles").replaceChildren(...tiles);
  $("status").textContent = `Drawing ${body.n} ${body.n === 1 ? "sample" : "samples"} in ${body.num_inference_steps} steps.`;
  if (matchMedia("(max-width: 820px)").matches) $("stage").scrollIntoView();
  running = new AbortController();
  $("draw").disabled = true;
  $("stop").disabled = false;
  const began = performance.now();
  try {
    await draw(text, (found) => seen(found, tiles, body), running.signal);
    const seconds = (performance.now() - began) / 1000;
    latency.add(seconds);
    const done = tiles.filter((item) => item.dataset.state === "done").length;
    $("status").textContent = `${done} ${done === 1 ? "sample" : "samples"} in ${duration(seconds)}.`;
  } catch (error) {
    for (const item of tiles) if (item.dataset.state !== "done") item.remove();
    if (error.name === "AbortError") $("status").textContent = "Stopped.";
    else { $("status").textContent = "Not drawn."; fail(error.message); }
  } finally {
    const held = document.activeElement === $("stop");
    running = undefined;
    $("draw").disabled = false;
    $("stop").disabled = true;
    if (held) $("draw").focus();
  }
}

/** Ask for the state of the server once a second, while the page is seen. */
async function watch() {
  if (!document.hidden && form) {
    try {
      const [health, metrics] = await Promise.all([fetch("/health"), fetch("/metrics")]);
      const state = (await health.json()).status;
      $("health").dataset.state = state;
      if ($("health").textContent !== state) $("health").textContent = state;
      occupancy.add(...read(await metrics.text(), form.model.id));
    } catch {
      $("health").dataset.state = "unavailable";
      if ($("health").textContent !== "unreachable") $("health").textContent = "unreachable";
    }
  }
  setTimeout(watch, 1000);
}

$("form").addEventListener("submit", submit);
$("stop").addEventListener("click", () => running?.abort());
start().then(watch, (error) => fail(`The models cannot be read: ${error.message}`));
