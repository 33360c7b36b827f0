// Two small charts, drawn as SVG.

const WIDTH = 320;
const HEIGHT = 96;

function part(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function lines() {
  return [0.25, 0.5, 0.75].map((at) => part("line", { class: "grid", x1: 0, x2: WIDTH, y1: at * HEIGHT, y2: at * HEIGHT }));
}

export function duration(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

/** Bars of the last 40 latencies. */
export class Latency {
  constructor(svg, label) {
    this.svg = svg;
    this.label = label;
    this.values = [];
    svg.replaceChildren(...lines());
  }

  add(seconds) {
    this.values = [...this.values, seconds].slice(-40);
    const top = Math.max(...this.values);
    const width = WIDTH / 40;
    const first = 40 - this.values.length;
    const bars = this.values.map((value, i) => {
      const height = Math.max(1, (value / top) * (HEIGHT - 4));
      return part("rect", { class: "bar", x: (first + i) * width + 1, y: HEIGHT - height, width: width - 2, height, rx: 1 });
    });
    this.svg.replaceChildren(...lines(), ...bars);
    const middle = [...this.values].sort((a, b) => a - b)[Math.floor(this.values.length / 2)];
    this.label.textContent = `last ${duration(seconds)}, median ${duration(middle)}, highest ${duration(top)}`;
  }
}

/** A curve of the last 60 values between 0 and 1. */
export class Occupancy {
  constructor(svg, label) {
    this.svg = svg;
    this.label = label;
    this.values = [];
    svg.replaceChildren(...lines());
  }

  add(value, running, waiting) {
    this.values = [...this.values, value].slice(-60);
    const first = 60 - this.values.length;
    const points = this.values.map((v, i) => [((first + i) / 59) * WIDTH, HEIGHT - 1 - v * (HEIGHT - 4)]);
    const curve = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" L");
    const area = part("path", { class: "area", d: `M${points[0][0]},${HEIGHT} L${curve} L${WIDTH},${HEIGHT} Z` });
    this.svg.replaceChildren(...lines(), area, part("path", { class: "curve", d: `M${curve}` }));
    this.label.textContent = `${Math.round(value * 100)} %, ${running} running, ${waiting} waiting`;
  }
}

/** The metrics of one model out of Prometheus' text. */
export function read(text, model) {
  const value = (name) => {
    const line = text.split("\n").find((row) => row.startsWith(`diffuse_fast_${name}{model="${model}"}`));
    return line ? Number(line.slice(line.lastIndexOf(" ") + 1)) : 0;
  };
  return [value("batch_occupancy"), value("samples_running"), value("samples_waiting")];
}
