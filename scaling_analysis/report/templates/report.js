"use strict";
(() => {
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
  const svgNS = "http://www.w3.org/2000/svg";
  const element = (name, attributes) => {
    const made = document.createElementNS(svgNS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const calculator = (box, data) => {
    const T = data.columns, C = T.flops, last = C.length - 1;
    const find = (selector) => box.querySelector(selector);
    const slider = find("[data-role=slider]"), field = find("[data-role=compute]");
    const beyond = find("[data-role=beyond]"), trouble = find("[data-role=trouble]");
    const goals = [...box.querySelectorAll("[data-goal]")];
    // Between the rows of the table everything is a straight line in logs.
    const read = (name, flops) => {
      const y = T[name];
      if (!y) return null;
      let lo = 0, hi = last;
      while (hi - lo > 1) { const mid = (lo + hi) >> 1; if (C[mid] < flops) lo = mid; else hi = mid; }
      const a = y[lo], b = y[hi];
      if (a === null || b === null) return null;
      const w = Math.log(flops / C[lo]) / Math.log(C[hi] / C[lo]);
      return a > 0 && b > 0 ? Math.exp((1 - w) * Math.log(a) + w * Math.log(b)) : (1 - w) * a + w * b;
    };
    // The least compute at which a column reaches a value; 0 before the table, Infinity beyond.
    const inverse = (name, goal) => {
      const y = T[name], down = name.startsWith("loss");
      for (let i = 0; y && i <= last; i++) {
        if (y[i] === null || (down ? y[i] > goal : y[i] < goal)) continue;
        if (i === 0 || y[i - 1] === null) return 0;
        const w = Math.log(goal / y[i - 1]) / Math.log(y[i] / y[i - 1]);
        return Math.exp((1 - w) * Math.log(C[i - 1]) + w * Math.log(C[i]));
      }
      return Infinity;
    };
    const position = (flops) => 1000 * Math.log(flops / C[0]) / Math.log(C[last] / C[0]);
    const along = (axis, v) => {
      const t = axis.log ? Math.log : (x) => x, [a, b] = axis.limits, [p, q] = axis.pixels;
      return p + (q - p) * (t(v) - t(a)) / (t(b) - t(a));
    };
    const inside = (axis, p) => p >= Math.min(...axis.pixels) - 1 && p <= Math.max(...axis.pixels) + 1;
    const follow = (flops) => {
      for (const [key, f] of Object.entries(data.figures)) {
        const group = document.getElementById(`fig-${key}`).querySelector(".follow"), v = read(f.column, flops);
        group.replaceChildren();
        if (v === null) continue;
        const x = along(f.x, flops), y = along(f.y, v);
        if (!inside(f.x, x)) continue;
        group.append(element("line", { x1: x, x2: x, y1: f.y.pixels[0], y2: f.y.pixels[1] }));
        if (inside(f.y, y)) group.append(element("circle", { cx: x, cy: y, r: 5 }));
      }
    };
    const show = (out, flops) => {
      const name = out.dataset.out, write = name.endsWith("_opt") ? count : number, v = read(name, flops);
      out.querySelector("b").textContent = v === null ? "–" : write(v);
      for (const span of out.querySelectorAll("[data-kind]")) {
        const kind = span.dataset.kind, lo = read(`${name}${kind}_lo`, flops), hi = read(`${name}${kind}_hi`, flops);
        span.textContent = lo === null || hi === null ? "" : `${span.dataset.word} ${write(lo)} to ${write(hi)}`;
      }
    };
    const set = (flops, from) => {
      const c = Math.min(Math.max(flops, C[0]), C[last]);
      if (from !== field) field.value = c.toPrecision(3).replace("e+", "e");
      if (from !== slider) slider.value = position(c);
      slider.setAttribute("aria-valuetext", `${c.toPrecision(3)} FLOP`);
      for (const out of box.querySelectorAll("[data-out]")) show(out, c);
      for (const goal of goals) {
        const v = read(goal.dataset.goal, c);
        if (from !== goal && v !== null) goal.value = three(v);
      }
      const factor = c / data.flops_max;
      beyond.textContent = factor > 1.0005 ? `${compute(c)} FLOP, ${three(factor)}× the largest budget of the log` : `${compute(c)} FLOP, within the log`;
      trouble.textContent = c === flops ? "" : `The table goes from ${compute(C[0])} to ${compute(C[last])} FLOP.`;
      follow(c);
    };
    const typed = (input) => {
      const v = Number(input.value.replace(/,/g, "").trim());
      return input.value.trim() !== "" && Number.isFinite(v) && v > 0 ? v : null;
    };
    slider.addEventListener("input", () => set(C[0] * Math.exp(Math.log(C[last] / C[0]) * slider.value / 1000), slider));
    field.addEventListener("change", () => {
      const v = typed(field);
      if (v === null) trouble.textContent = "Type a compute such as 1e19."; else set(v, field);
    });
    const edge = (flops) => flops === 0 ? `less than ${compute(C[0])}` : flops === Infinity ? `more than ${compute(C[last])}` : compute(flops);
    for (const input of goals) {
      input.addEventListener("change", () => {
        const name = input.dataset.goal, v = typed(input);
        if (v === null) { trouble.textContent = "Type a positive number."; return; }
        const flops = inverse(name, v);
        if (flops === 0 || flops === Infinity) {
          trouble.textContent = `The forecast does not cross ${three(v)} between ${compute(C[0])} and ${compute(C[last])} FLOP.`;
          return;
        }
        set(flops, input);
        const ends = [inverse(`${name}_lo`, v), inverse(`${name}_hi`, v)].sort((a, b) => a - b);
        beyond.textContent += `; the ${data.level} interval of the expected value crosses ${three(v)} from ${edge(ends[0])} to ${edge(ends[1])} FLOP`;
      });
    }
    box.hidden = false;
    set(data.start, null);
  };

  // Values of a mark: by pointing, by touch, and by the arrow keys on a figure that has the focus.
  for (const drawing of document.querySelectorAll(".drawing")) {
    const svg = drawing.querySelector("svg"), tip = drawing.querySelector(".tip");
    const marks = [...svg.querySelectorAll(".hover circle")];
    if (marks.length === 0) continue;
    const order = [...marks].sort((a, b) => a.cx.baseVal.value - b.cx.baseVal.value);
    const texts = new Map(marks.map((mark) => [mark, mark.textContent]));
    for (const mark of marks) mark.replaceChildren();
    let at = null;
    const tell = (mark) => {
      if (at) at.classList.remove("at");
      at = mark;
      tip.hidden = mark === null;
      if (mark === null) return;
      mark.classList.add("at");
      tip.textContent = texts.get(mark);
    };
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointerover", (event) => tell(texts.has(event.target) ? event.target : null));
    svg.addEventListener("pointerleave", () => tell(null));
    svg.addEventListener("blur", () => tell(null));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") tell(null);
      if (!step) return;
      event.preventDefault();
      const now = at ? order.indexOf(at) + step : step > 0 ? 0 : order.length - 1;
      tell(order[(now + order.length) % order.length]);
    });
  }
  for (const link of document.querySelectorAll("a[data-csv]")) {
    link.addEventListener("click", () => {
      link.href = URL.createObjectURL(new Blob([link.parentElement.querySelector("template").content.textContent], { type: "text/csv" }));
    });
  }
  const data = JSON.parse(document.getElementById("forecast-data").textContent);
  for (const box of document.querySelectorAll(".calculator")) calculator(box, data[box.dataset.part]);
})();
