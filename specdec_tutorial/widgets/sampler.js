// One next-token distribution under temperature, top-k and top-p, and one token drawn from it.
// State: logits and words of all tokens, most likely first; temperature, top_k, top_p, u to start with; colors {kept, out}.
export default {
  render({ model, el }) {
    const logits = model.get("logits");
    const word = (rank) => `“${model.get("words")[rank]}”`;
    const { kept: KEPT, out: OUT } = model.get("colors");
    const [ROWS, HEIGHT, TOP] = [16, 20, 24];
    const [BAR, BAR_WIDTH, CDF, CDF_WIDTH] = [120, 160, 372, 256]; // left edges and widths of the two columns
    const bottom = TOP + (ROWS + 1) * HEIGHT;
    const steps = [1, 2, 3, 5, 8, 10, 15, 20, 30, 40, 50, 100, 200, 500, 1000].filter((k) => k < logits.length);
    const ks = [...steps, logits.length]; // the last one keeps everything

    const add = (parent, tag, css = "", props = {}) => {
      const node = Object.assign(document.createElement(tag), props);
      node.style.cssText = css;
      return parent.appendChild(node);
    };
    const frame = "border:1px solid currentColor;border-radius:6px;padding:0.7em";
    const root = add(el, "div", `${frame};background:transparent;color:inherit;font-size:0.95em`);
    const grid = "display:grid;grid-template-columns:repeat(auto-fit,minmax(17em,1fr));gap:0.3em 1.2em";
    const controls = add(root, "div", grid);
    const slider = (name, min, max, step, value, text) => {
      const label = add(controls, "label", "display:block");
      const caption = add(label, "span", "display:block");
      const input = add(label, "input", "width:100%", { type: "range", min, max, step, value, oninput: () => draw() });
      return {
        input,
        read: () => Number(input.value),
        show: (shown) => {
          caption.textContent = `${name}: ${text(shown)}`;
          input.setAttribute("aria-valuetext", text(shown));
        },
      };
    };
    const start = ks.findIndex((k) => k >= model.get("top_k"));
    const last = ks.length - 1;
    const temperature = slider("Temperature", 0.1, 3, 0.05, model.get("temperature"), (t) => t.toFixed(2));
    const topK = slider("Top-k", 0, last, 1, start < 0 ? last : start, (i) => (i < last ? `${ks[i]}` : "off"));
    const topP = slider("Top-p", 0.05, 1, 0.01, model.get("top_p"), (p) => (p < 1 ? p.toFixed(2) : "off"));
    const uniform = slider("Uniform number u", 0, 0.999, 0.001, model.get("u"), (x) => x.toFixed(3));
    let u = uniform.read(); // a fresh one is finer than the slider's steps
    uniform.input.oninput = () => {
      u = uniform.read();
      draw();
    };
    const row = add(root, "div", "display:flex;flex-wrap:wrap;gap:0.4em 0.8em;align-items:center;margin:0.6em 0;min-height:2em");
    const button = add(row, "button", "padding:0.2em 0.8em", { type: "button", textContent: "Draw with a fresh u" });
    const past = add(row, "span", "opacity:0.85");
    const picture = add(root, "div", "overflow-x:auto");
    const status = add(root, "p", "margin:0.4em 0 0;min-height:2.8em");
    status.setAttribute("aria-live", "polite");

    // The processors of the chapter, for logits that are sorted already.
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    const compute = () => {
      const weights = logits.map((x) => Math.exp((x - logits[0]) / temperature.read()));
      const k = ks[topK.read()];
      const limit = topP.read() < 1 ? topP.read() * sum(weights.slice(0, k)) : Infinity;
      let count = 0;
      for (let before = 0; count < k && before < limit; count += 1) before += weights[count];
      const total = sum(weights.slice(0, count));
      let mass = 0;
      const cdf = weights.slice(0, count).map((w) => (mass += w) / total);
      const token = cdf.findIndex((c) => c > u);
      const all = sum(weights);
      return { count, cdf, token: token < 0 ? count - 1 : token, uncut: weights.map((w) => w / all) };
    };

    const line = (x1, y1, x2, y2, dash) =>
      `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="currentColor" stroke-width="1.5" stroke-dasharray="${dash}"/>`;
    const box = (x, y, width, fill, edge, thick) =>
      `<rect x="${x}" y="${y}" width="${Math.max(width, 1)}" height="${HEIGHT - 6}" fill="${fill}" stroke="${edge}" stroke-width="${thick}"/>`;
    const label = (x, y, text, anchor = "start") =>
      `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="currentColor">${text.replace(/&/g, "&amp;").replace(/</g, "&lt;")}</text>`;

    const draw = () => {
      [temperature, topK, topP].forEach((s) => s.show(s.read()));
      uniform.show(u);
      const { count, cdf, token, uncut } = compute();
      const left = (rank) => (rank ? cdf[rank - 1] : 0);
      const after = (rank) => (rank < count ? cdf[rank] - left(rank) : 0);
      const scale = BAR_WIDTH / Math.max(after(0), uncut[0]);
      const kept = (x, y, width, isDrawn) => box(x, y, width, KEPT, isDrawn ? "currentColor" : KEPT, isDrawn ? 2.5 : 1);
      const out = [label(BAR, 14, "probability"), label(CDF, 14, "0"), label(CDF + CDF_WIDTH, 14, "1", "end")];
      for (let r = 0; r < Math.min(ROWS, logits.length); r += 1) {
        const y = TOP + r * HEIGHT + 3;
        out.push(label(BAR - 8, y + 12, word(r).slice(0, 16), "end"));
        if (r < count) {
          out.push(kept(BAR, y, after(r) * scale, r === token));
          out.push(kept(CDF + left(r) * CDF_WIDTH, y, after(r) * CDF_WIDTH, r === token));
        }
        out.push(box(BAR, y, uncut[r] * scale, "none", r < count ? "currentColor" : OUT, 1)); // before the cut
        const x = BAR + Math.max(after(r), uncut[r]) * scale + 6;
        out.push(label(x, y + 12, r < count ? after(r).toFixed(3) : "ruled out"));
      }
      if (count > ROWS) {
        const [y, rest] = [TOP + ROWS * HEIGHT + 3, 1 - cdf[ROWS - 1]];
        out.push(label(BAR - 8, y + 12, `${count - ROWS} more`, "end"), label(BAR, y + 12, `together ${rest.toFixed(3)}`));
        out.push(kept(CDF + cdf[ROWS - 1] * CDF_WIDTH, y, rest * CDF_WIDTH, token >= ROWS));
      }
      const x = CDF + u * CDF_WIDTH;
      out.push(line(CDF, TOP - 4, CDF + CDF_WIDTH, TOP - 4, "none"), line(x, TOP - 4, x, bottom, "4 3"));
      out.push(label(x, bottom + 14, `u = ${u.toFixed(3)}`, "middle"));
      const digits = after(token) < 0.005 ? 6 : 3;
      const stretch = `[${left(token).toFixed(digits)}, ${cdf[token].toFixed(digits)})`;
      status.textContent = `${count} of ${logits.length} tokens can be drawn. u = ${u.toFixed(digits)} lies in ${stretch}: ${word(token)}.`;
      const style = "width:100%;min-width:480px;max-width:760px";
      picture.innerHTML = `<svg viewBox="0 0 650 ${bottom + 20}" role="img" style="${style}" font-size="12.5">${out.join("")}</svg>`;
      picture.firstChild.setAttribute("aria-label", status.textContent);
      return token;
    };
    const drawn = [];
    button.onclick = () => {
      u = Math.random();
      uniform.input.value = u;
      drawn.push(word(draw()));
      past.textContent = `drawn: ${drawn.slice(-8).join(" ")}`;
    };
    draw();
  },
};
