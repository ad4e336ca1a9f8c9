// Step through decoding: which positions does each pass read, without a cache and with one?
// State: prompt and written (lists of token texts), colors {read, kept, written}.
export default {
  render({ model, el }) {
    const prompt = model.get("prompt");
    const written = model.get("written");
    const colors = model.get("colors");
    const columns = prompt.length + written.length - 1; // the newest token is never read
    let pass = 0;
    let timer = null;

    const add = (parent, tag, text = "", css = "", props = {}) => {
      const node = Object.assign(document.createElement(tag), { textContent: text, ...props });
      node.style.cssText = css;
      return parent.appendChild(node);
    };
    const frame = "border:1px solid currentColor;border-radius:6px;padding:0.7em;background:transparent;color:inherit";
    const root = add(el, "div", "", `${frame};font-size:0.95em`);
    const text = add(root, "p", "", "white-space:pre-wrap;min-height:3.2em;line-height:1.6;margin:0 0 0.5em");
    const panels = add(root, "div", "", "display:flex;flex-wrap:wrap;gap:1em");

    // What happens at a column during a pass: read, kept in the cache, or not there (yet).
    const first = (i) => prompt.length + i; // the length of the text that pass i starts from
    const kinds = [
      { title: "Without a cache", at: (i, x) => (x < first(i) ? "read" : "none"), cost: (i) => first(i) },
      {
        title: "With a cache",
        at: (i, x) => (x >= first(i) ? "none" : i === 0 || x === first(i) - 1 ? "read" : "kept"),
        cost: (i) => (i === 0 ? prompt.length : 1),
      },
    ];
    for (const kind of kinds) {
      const panel = add(panels, "div", "", "flex:1 1 16em;min-width:0");
      add(panel, "div", kind.title, "font-weight:600");
      const grid = add(panel, "div", "", `display:grid;grid-template-columns:repeat(${columns},1fr);gap:1px;margin:0.3em 0`);
      grid.setAttribute("aria-hidden", "true"); // the sentence below says the same
      kind.cells = written.map((_, i) =>
        Array.from({ length: columns }, (_, x) => {
          const css = `height:0.8em;border:1px solid transparent;box-sizing:border-box;border-radius:2px`;
          return { what: kind.at(i, x), node: add(grid, "span", "", css) };
        }),
      );
      kind.total = add(panel, "div", "", "font-variant-numeric:tabular-nums");
    }
    const status = add(root, "p", "", "min-height:3.2em;margin:0.5em 0");
    status.setAttribute("aria-live", "polite");
    const controls = add(root, "div", "", "display:flex;flex-wrap:wrap;gap:0.5em;align-items:center");
    const button = (name, onclick) => add(controls, "button", name, "padding:0.2em 0.8em", { type: "button", onclick });

    const go = (to) => {
      pass = Math.max(0, Math.min(written.length - 1, to));
      draw();
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    const back = button("‹ Back", () => go(pass - 1));
    const play = button("Play", () => {
      if (timer) return stop();
      play.textContent = "Pause";
      if (pass === written.length - 1) go(0);
      timer = setInterval(() => {
        go(pass + 1);
        if (pass === written.length - 1) stop();
      }, 700);
    });
    const next = button("Next ›", () => go(pass + 1));
    const label = add(controls, "label", "Pass ", "flex:1;display:flex;gap:0.4em;min-width:9em");
    const slider = add(label, "input", "", "flex:1", { type: "range", min: 0, max: written.length - 1 });
    slider.oninput = () => go(Number(slider.value));

    const sum = (kind) => Array.from({ length: pass + 1 }, (_, i) => kind.cost(i)).reduce((a, b) => a + b);
    const positions = (n) => `${n} position${n === 1 ? "" : "s"}`;
    const draw = () => {
      text.replaceChildren();
      add(text, "span", prompt.join(""), "opacity:0.65");
      add(text, "span", written.slice(0, pass).join(""));
      add(text, "span", written[pass], `border-bottom:3px solid ${colors.written}`);
      for (const kind of kinds) {
        kind.cells.forEach((row, i) =>
          row.forEach(({ what, node }) => {
            const shown = i <= pass && what !== "none";
            node.style.background = shown && what === "read" ? colors.read : "transparent";
            node.style.borderColor = shown ? colors[what] : "transparent";
            node.style.opacity = i === pass ? 1 : 0.45;
          }),
        );
        kind.total.textContent = `this pass ${kind.cost(pass)}, in total ${sum(kind)}`;
      }
      const [all, one] = kinds.map((kind) => positions(kind.cost(pass)));
      const kept = pass === 0 ? "nothing is kept yet" : `${positions(first(pass) - 1)} come from the cache`;
      status.textContent = `Pass ${pass + 1} of ${written.length} writes “${written[pass].trim() || "↵"}”. Without a cache it reads ${all}; with a cache ${one}, and ${kept}.`;
      slider.value = pass;
      back.disabled = pass === 0;
      next.disabled = pass === written.length - 1;
    };
    draw();
  },
};
