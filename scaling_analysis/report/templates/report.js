"use strict";
(() => {
  const data = JSON.parse(document.getElementById("forecast-data").textContent);
  const T = data.columns, C = T.flops, last = C.length - 1;
  const $ = (id) => document.getElementById(id);
  const SUP = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const three = (v) => Number(v).toPrecision(3).includes("e") ? String(Math.round(Number(Number(v).toPrecision(3)))) : Number(v).toPrecision(3);
  const compute = (v) => {
    const [d, e] = v.toExponential(2).split("e");
    const p = "10" + [...String(Number(e))].map((c) => SUP[c]).join("");
    return Number(d) === 1 ? p : `${Number(d)}×${p}`;
  };
  const count = (v) => {
    if (v >= 1e15) return compute(v);
    for (const [s, l] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (v >= s * 0.9995) return three(v / s) + l;
    return three(v);
  };
  const number = (v) => (v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e6)) ? compute(v) : Math.abs(v) >= 1000 ? Number(three(v)).toLocaleString("en") : three(v);
  // Between the rows of the table everything is a straight line in logs.
  const read = (name, flops) => {
    const y = T[name];
    if (!y) return null;
    let i = 1;
    while (i < last && C[i] < flops) i++;
    const a = y[i - 1], b = y[i];
    if (a === null || b === null) return null;
    const w = (Math.log(flops) - Math.log(C[i - 1])) / (Math.log(C[i]) - Math.log(C[i - 1]));
    return a > 0 && b > 0 ? Math.exp((1 - w) * Math.log(a) + w * Math.log(b)) : (1 - w) * a + w * b;
  };
  // The least compute at which the forecast reaches a value.
  const inverse = (name, goal) => {
    const y = T[name], down = name === "loss";
    for (let i = 0; i <= last; i++) {
      if (y[i] === null || (down ? y[i] > goal : y[i] < goal)) continue;
      if (i === 0) return null;
      const w = Math.log(goal / y[i - 1]) / Math.log(y[i] / y[i - 1]);
      return Math.exp((1 - w) * Math.log(C[i - 1]) + w * Math.log(C[i]));
    }
    return null;
  };
  const slider = $("compute-slider"), field = $("compute");
  const position = (flops) => 1000 * Math.log(flops / C[0]) / Math.log(C[last] / C[0]);
  const svgNS = "http://www.w3.org/2000/svg";
  const along = (axis, v) => {
    const t = axis.log ? Math.log : (x) => x, [a, b] = axis.limits, [p, q] = axis.pixels;
    return p + (q - p) * (t(v) - t(a)) / (t(b) - t(a));
  };
  const inside = (axis, p) => p >= Math.min(...axis.pixels) - 1 && p <= Math.max(...axis.pixels) + 1;
  const follow = (flops) => {
    for (const [key, f] of Object.entries(data.figures)) {
      const group = document.querySelector(`#fig-${key} .follow`), v = read(f.column, flops);
      group.replaceChildren();
      if (v === null) continue;
      const x = along(f.x, flops), y = along(f.y, v);
      if (!inside(f.x, x) || !inside(f.y, y)) continue;
      const line = document.createElementNS(svgNS, "line");
      for (const [n, z] of [["x1", x], ["x2", x], ["y1", f.y.pixels[0]], ["y2", f.y.pixels[1]]]) line.setAttribute(n, z);
      const dot = document.createElementNS(svgNS, "circle");
      for (const [n, z] of [["cx", x], ["cy", y], ["r", 5]]) dot.setAttribute(n, z);
      group.append(line, dot);
    }
  };
  const show = (name, flops) => {
    const out = $(`out-${name}`);
    if (!out) return;
    const write = name.endsWith("_opt") ? count : number, v = read(name, flops);
    out.querySelector("b").textContent = v === null ? "–" : write(v);
    for (const kind of ["", "_run"]) {
      const span = out.querySelector(`[data-kind="${kind}"]`);
      if (!span) continue;
      const lo = read(`${name}${kind}_lo`, flops), hi = read(`${name}${kind}_hi`, flops);
      span.textContent = lo === null || hi === null ? "" : `${span.dataset.word} ${write(lo)} to ${write(hi)}`;
    }
  };
  const set = (flops, from) => {
    const c = Math.min(Math.max(flops, C[0]), C[last]);
    if (from !== field) field.value = c.toPrecision(3).replace("e+", "e");
    if (from !== slider) slider.value = position(c);
    slider.setAttribute("aria-valuetext", `${c.toPrecision(3)} FLOP`);
    for (const name of ["params_opt", "samples_opt", "loss", "mean_return"]) show(name, c);
    for (const goal of ["loss", "mean_return"]) {
      const box = $(`goal-${goal}`), v = read(goal, c);
      if (box && from !== box && v !== null) box.value = three(v);
    }
    const factor = c / data.flops_max;
    $("beyond").textContent = factor > 1 ? `${compute(c)} FLOP, ${three(factor)}× the largest budget of the log` : `${compute(c)} FLOP, within the log`;
    $("trouble").textContent = c === flops ? "" : `The table goes from ${compute(C[0])} to ${compute(C[last])} FLOP.`;
    follow(c);
  };
  const typed = (box) => {
    const v = Number(box.value.replace(/,/g, "").trim());
    return box.value.trim() !== "" && Number.isFinite(v) && v > 0 ? v : null;
  };
  slider.addEventListener("input", () => set(C[0] * Math.exp(Math.log(C[last] / C[0]) * slider.value / 1000), slider));
  field.addEventListener("change", () => {
    const v = typed(field);
    if (v === null) $("trouble").textContent = "Type a compute such as 1e19."; else set(v, null);
  });
  for (const goal of ["loss", "mean_return"]) {
    const box = $(`goal-${goal}`);
    if (!box) continue;
    box.addEventListener("change", () => {
      const v = typed(box), flops = v === null ? null : inverse(goal, v);
      if (flops === null) $("trouble").textContent = v === null ? "Type a positive number." : `The forecast does not cross this value between ${compute(C[0])} and ${compute(C[last])} FLOP.`;
      else set(flops, box);
    });
  }
  for (const link of document.querySelectorAll("a[data-csv]")) {
    link.href = URL.createObjectURL(new Blob([link.parentElement.querySelector("template").content.textContent], { type: "text/csv" }));
  }
  $("calculator").hidden = false;
  set(data.start, null);
})();
