// The settings: controls made from what /v1/models says, and the body of a request.

const $ = (id) => document.getElementById(id);

export class Form {
  constructor(models) {
    this.models = models;
    $("model").replaceChildren(...models.map((model) => new Option(model.id)));
    $("model-field").hidden = models.length < 2;
    $("model").addEventListener("change", () => this.describe());
    for (const input of document.querySelectorAll(".range > input")) {
      const show = () => { input.nextElementSibling.textContent = input.value; };
      input.addEventListener("input", show);
      show();
    }
    $("forget").addEventListener("click", () => { $("seed").value = ""; $("seed").focus(); });
    this.describe();
  }

  get model() {
    return this.models.find((model) => model.id === $("model").value);
  }

  get label() {
    return this.model.conditioning.find((input) => input.classes !== null);
  }

  /** Show the controls of the chosen model. */
  describe() {
    const { model, label } = this;
    $("solver").replaceChildren(...model.solvers.map((name) => new Option(name)));
    $("solver").value = model.default_solver;
    this.range("steps", model.default_steps);
    $("guidance").disabled = !label || label.null === null;
    $("class-field").hidden = !label;
    if (label) this.classes(label);
    const [height, width] = model.shape.slice(-2);
    document.documentElement.style.setProperty("--ratio", `${width} / ${height}`);
  }

  classes(label) {
    const chip = (value, text, wide) => {
      const holder = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "class", value });
      const name = Object.assign(document.createElement("span"), { textContent: text });
      holder.className = wide ? "wide" : "";
      holder.append(input, name);
      return holder;
    };
    const names = label.class_names ?? Array.from({ length: label.classes }, (_, i) => String(i));
    const chips = names.slice(0, 200).map((name, i) => chip(String(i), name, false));
    if (names.length > 1) chips.unshift(chip("each", "each", true));
    if (label.null !== null) chips.push(chip("", "none", true));
    $("classes").classList.toggle("named", Boolean(label.class_names));
    $("classes").replaceChildren(...chips);
    this.choose(names.length > 1 ? "each" : "0");
  }

  choose(value) {
    const input = document.querySelector(`input[name="class"][value="${value}"]`);
    if (input) input.checked = true;
  }

  range(id, value) {
    const input = $(id);
    input.max = Math.max(input.max, value);
    input.value = value;
    input.dispatchEvent(new Event("input"));
  }

  /** The request as JSON text: a seed may be larger than a number of JavaScript holds. */
  body() {
    const n = Number($("n").value);
    const body = {
      model: this.model.id,
      n,
      num_inference_steps: Number($("steps").value),
      solver: $("solver").value,
      stream: true,
      partial_images: 3,
    };
    const chosen = document.querySelector('input[name="class"]:checked')?.value ?? "";
    if (this.label && chosen === "each") body.class_label = Array.from({ length: n }, (_, i) => i % this.label.classes);
    else if (this.label && chosen !== "") body.class_label = Number(chosen);
    if (!$("guidance").disabled) body.guidance_scale = Number($("guidance").value);
    const seed = $("seed").value.trim();
    return seed === "" ? JSON.stringify(body) : `${JSON.stringify(body).slice(0, -1)},"seed":${seed.replace(/^0+(?=\d)/, "")}}`;
  }

  /** Set the controls to those of an earlier sample. */
  use(how) {
    $("model").value = how.model;
    this.describe();
    $("solver").value = how.sample.solver;
    this.range("steps", how.sample.steps);
    this.range("guidance", how.sample.guidance_scale ?? 1);
    this.range("n", how.sample.first_index + 1);
    $("seed").value = String(how.sample.seed);
    if (this.label) this.choose(String(how.sample.cond?.[this.label.name] ?? ""));
  }
}
