// Rejection sampling as a game: a dart thrown at the drafter's bars stays if it lands below the target's height.
// State: words, p and q (weights from 0 to 20, one per word), colors {accepted, rejected, corrected, target, drafter, neutral}.
export default {
  render({ model, el }) {
    const words = model.get("words");
    const colors = model.get("colors");
    const weights = { q: [...model.get("q")], p: [...model.get("p")] };
    const [left, step, wide, high, base] = [44, 116, 42, 170, 205];
    let counts = words.map(() => 0);
    let last = null;
    let kept = 0;

    // Math.random cannot be seeded; with this generator (mulberry32) every reader sees the same draws.
    let seed = 4;
    const random = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    const normal = (list) => list.map((x) => x / sum(list));
    const draw = (list) => {
      let rest = random() * sum(list);
      const found = list.findIndex((x) => (rest -= x) < 0);
      return found < 0 ? list.findLastIndex((x) => x > 0) : found;
    };
    const play = () => {
      const [q, p] = [normal(weights.q), normal(weights.p)];
      const x = draw(q);
      const u = random();
      const accepted = u * q[x] < p[x];
      const y = accepted ? x : draw(p.map((value, i) => Math.max(0, value - q[i])));
      last = { x, u, y, accepted, ratio: p[x] / q[x] };
      counts[y] += 1;
      kept += accepted;
    };

    const add = (parent, tag, text = "", css = "", props = {}) => {
      const node = Object.assign(document.createElement(tag), { textContent: text, ...props });
      node.style.cssText = css;
      return parent.appendChild(node);
    };
    const shape = (tag, attributes, text = "") => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      node.textContent = text;
      return svg.appendChild(node);
    };
    const root = add(el, "div", "", "border:1px solid currentColor;border-radius:6px;padding:0.7em;font-size:0.95em");
    const svg = root.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
    svg.setAttribute("viewBox", `0 0 ${left + words.length * step} 350`);
    svg.style.cssText = "width:100%;max-width:640px;display:block;margin:auto";
    svg.setAttribute("aria-hidden", "true"); // the line below it says the same in words
    const status = add(root, "p", "", "min-height:4.6em;margin:0.3em 0");
    status.setAttribute("aria-live", "polite");
    const buttons = add(root, "div", "", "display:flex;flex-wrap:wrap;gap:0.5em;margin-bottom:0.6em");
    const button = (text, action) => {
      const onclick = () => (action(), show());
      add(buttons, "button", text, "padding:0.2em 0.8em", { type: "button", onclick });
    };
    const restart = () => ([counts, last, kept] = [words.map(() => 0), null, 0]);
    button("Draw one", play);
    button("Draw 100", () => Array.from({ length: 100 }, play));
    button("Clear draws", restart);
    for (const name of ["q", "p"]) {
      const box = add(root, "fieldset", "", "border:0;padding:0;margin:0 0 0.4em;display:flex;flex-wrap:wrap;gap:0.2em 1em");
      add(box, "legend", name === "q" ? "q, the drafter" : "p, the target", "font-size:1em;font-weight:600;padding:0;margin:0");
      words.forEach((word, i) => {
        const label = add(box, "label", `${word} `, "display:flex;gap:0.4em;align-items:center");
        const slider = add(label, "input", "", "width:6.5em", { type: "range", min: 0, max: 20, value: weights[name][i] });
        slider.oninput = () => {
          const before = weights[name][i];
          weights[name][i] = Number(slider.value);
          if (sum(weights[name]) === 0) slider.value = weights[name][i] = before; // all zero is no distribution
          restart();
          show();
        };
      });
    }

    const bar = (x, from, to, fill, opacity = 0.9) =>
      shape("rect", { x, y: base - to * high, width: wide, height: Math.max(0, to - from) * high, fill, "fill-opacity": opacity });
    const text = (x, y, value, size = 13, anchor = "middle") =>
      shape("text", { x, y, "text-anchor": anchor, "font-size": size, fill: "currentColor" }, value);
    const show = () => {
      svg.replaceChildren();
      const [q, p] = [normal(weights.q), normal(weights.p)];
      const alpha = sum(p.map((value, i) => Math.min(value, q[i])));
      const n = sum(counts);
      text(0, 245, n ? `${n} drawn` : "no draws", 11, "start");
      words.forEach((word, i) => {
        const x = left + i * step;
        const both = Math.min(p[i], q[i]);
        bar(x, 0, both, colors.accepted);
        bar(x, both, q[i], colors.rejected);
        bar(x + wide + 3, 0, both, colors.accepted, 0.35);
        bar(x + wide + 3, both, p[i], colors.corrected);
        text(x + wide / 2, base - q[i] * high - 5, `q ${q[i].toFixed(2)}`, 11);
        text(x + wide * 1.5 + 3, base - p[i] * high - 5, `p ${p[i].toFixed(2)}`, 11);
        text(x + wide, base + 17, word, 14);
        const share = n ? counts[i] / n : 0;
        shape("rect", { x: x + wide / 2, y: 340 - share * 90, width: wide, height: share * 90, fill: colors.neutral });
        shape("rect", { x: x + wide / 2 - 6, y: 338.5 - p[i] * 90, width: wide + 12, height: 3, fill: colors.target });
        if (n) text(x + wide * 1.5 + 10, 344 - share * 45, share.toFixed(2), 11, "start");
      });
      if (last) {
        const dart = (cx, height) =>
          shape("circle", { cx, cy: base - height * high, r: 6, fill: "white", stroke: "black", "stroke-width": 2 });
        dart(left + last.x * step + wide / 2, last.u * q[last.x]);
        if (!last.accepted) dart(left + last.y * step + wide * 1.5 + 3, (p[last.y] + q[last.y]) / 2);
      }
      const rule = `α = ${alpha.toFixed(2)}, the green: kept. Red, on top of q: rejected. Orange, on top of p, as large as red: the residual. `;
      const end = last?.accepted ? "below it, so the guess stays." : `not below it: rejected. The residual gives “${words[last?.y]}”.`;
      const story = last && `The drafter draws “${words[last.x]}”. u = ${last.u.toFixed(2)}, p / q = ${last.ratio.toFixed(2)}; u is ${end} `;
      const tally = n ? `${kept} of ${n} guesses were kept. Gray is what came out, the blue line is p.` : "";
      status.textContent = rule + (story ?? "") + tally;
    };
    show();
  },
};
