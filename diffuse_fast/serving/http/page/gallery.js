// What was drawn, and a dialog with the recipe of one sample.

const $ = (id) => document.getElementById(id);
const KEPT = 120;

export class Gallery {
  constructor(reuse) {
    $("reuse").addEventListener("click", () => { $("details").close(); reuse(this.shown.recipe); });
    $("close").addEventListener("click", () => $("details").close());
    $("details").addEventListener("click", (event) => { if (event.target === $("details")) $("details").close(); });
  }

  add(sample) {
    $("gallery-empty").hidden = true;
    const item = document.createElement("li");
    item.append(this.button(sample));
    $("gallery").prepend(item);
    while ($("gallery").children.length > KEPT) $("gallery").lastElementChild.remove();
  }

  /** A button with the picture that opens the details. */
  button(sample) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const image = Object.assign(document.createElement("img"), { className: "sample", src: sample.src, alt: sample.alt });
    button.append(image);
    button.addEventListener("click", () => this.show(sample));
    return button;
  }

  show(sample) {
    this.shown = sample;
    const how = sample.recipe;
    const rows = {
      model: how.model,
      ...Object.fromEntries(Object.entries(how.sample).map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : value])),
      "network calls": how.calls,
      runtime: [how.made_by.network.runtime, how.made_by.network.precision].filter(Boolean).join(", "),
    };
    $("details-list").replaceChildren(...Object.entries(rows).filter(([, value]) => value !== "").flatMap(([name, value]) => [
      Object.assign(document.createElement("dt"), { textContent: name.replaceAll("_", " ") }),
      Object.assign(document.createElement("dd"), { textContent: String(value) }),
    ]));
    Object.assign($("details-image"), { src: sample.src, alt: sample.alt });
    Object.assign($("download"), { href: sample.src, download: `${how.model}-${how.sample.seed}-${how.sample.first_index}.png` });
    $("details").showModal();
  }
}
