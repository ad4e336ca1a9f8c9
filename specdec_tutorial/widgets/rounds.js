// Step through a trace: a round's guesses appear, are tested one by one, and the target has the last word.
// State: prompt, rounds [{drafted, decisions, p, q, u, own, kind, kept, added}], colors by outcome.
export default {
  render({ model, el }) {
    const rounds = model.get("rounds");
    const colors = model.get("colors");

    // One frame shows the guesses, one each test, one what the round added to the text.
    const frames = rounds.flatMap((round, i) => {
      const tests = round.drafted.length ? round.decisions.length + 1 : 0;
      const steps = Array.from({ length: tests }, (_, tested) => ({ i, tested, done: false }));
      return [...steps, { i, tested: round.decisions.length, done: true }];
    });
    let at = 0;
    let timer = null;

    const add = (parent, tag, text = "", css = "", props = {}) => {
      const node = Object.assign(document.createElement(tag), { textContent: text, ...props });
      node.style.cssText = css;
      return parent.appendChild(node);
    };
    const frame = "border:1px solid currentColor;border-radius:6px;padding:0.7em";
    const root = add(el, "div", "", `${frame};background:transparent;color:inherit;font-size:0.95em`);
    const textSoFar = add(root, "div", "", "white-space:pre-wrap;height:5em;overflow-y:auto;line-height:1.6");
    const row = add(root, "div", "", "display:flex;flex-wrap:wrap;gap:0.4em;align-items:flex-start;min-height:5.6em;margin:0.6em 0");
    const status = add(root, "p", "", "min-height:3.2em;margin:0.4em 0");
    status.setAttribute("aria-live", "polite");
    const controls = add(root, "div", "", "display:flex;flex-wrap:wrap;gap:0.5em;align-items:center");
    const button = (text, action) =>
      add(controls, "button", text, "padding:0.2em 0.8em", { type: "button", onclick: action });

    const go = (to) => {
      at = Math.max(0, Math.min(frames.length - 1, to));
      draw();
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    const back = button("‹ Back", () => go(at - 1));
    const play = button("Play", () => {
      if (timer) return stop();
      play.textContent = "Pause";
      if (at === frames.length - 1) go(0);
      timer = setInterval(() => {
        go(at + 1);
        if (at === frames.length - 1) stop();
      }, 900);
    });
    const next = button("Next ›", () => go(at + 1));
    const nextRound = button("Next round »", () => {
      const to = frames.findIndex((f) => f.i > frames[at].i);
      go(to < 0 ? frames.length - 1 : to);
    });
    const label = add(controls, "label", "Step ", "flex:1;display:flex;gap:0.4em;min-width:9em");
    const slider = add(label, "input", "", "flex:1", { type: "range", min: 0, max: frames.length - 1 });
    slider.oninput = () => go(Number(slider.value));
    root.onkeydown = (event) => {
      if (event.target === slider || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      go(at + (event.key === "ArrowRight" ? 1 : -1));
      event.preventDefault();
    };

    const cell = (word, lines, color, dashed) => {
      const css = `border:2px ${dashed ? "dashed" : "solid"} ${color};border-radius:5px;padding:0.3em 0.6em`;
      const box = add(row, "div", "", `${css};text-align:center;min-width:5.2em`);
      add(box, "div", word, "font-weight:600;white-space:pre");
      for (const line of lines) add(box, "div", line, "font-size:0.8em");
    };
    const ratio = (r, k) => (r.p[k] / r.q[k]).toFixed(2);

    const say = ({ i, tested, done }) => {
      const r = rounds[i];
      const head = `Round ${i} of ${rounds.length - 1}. `;
      if (done && r.kind === "no draft") return `${head}The target reads the text and writes “${r.own}”; nothing was guessed.`;
      if (done && r.own === null) return `${head}An end token was accepted: the text is complete.`;
      if (done) return `${head}The target adds “${r.own}”, its ${r.kind}: ${r.decisions.filter(Boolean).length + 1} new tokens for one pass.`;
      if (!tested) return `${head}The drafter guesses ${r.drafted.length} tokens; the target reads them all in one pass.`;
      const k = tested - 1;
      const facts = `u = ${r.u[k].toFixed(2)}, p / q = ${r.p[k].toFixed(2)} / ${r.q[k].toFixed(2)} = ${ratio(r, k)}`;
      const end = r.decisions[k] ? "u is below it: accepted." : "u is not below it: rejected, and what follows is never tested.";
      return `${head}“${r.drafted[k]}”: ${facts}; ${end}`;
    };

    const draw = () => {
      const { i, tested, done } = frames[at];
      const r = rounds[i];
      textSoFar.replaceChildren();
      add(textSoFar, "span", model.get("prompt"), "opacity:0.65");
      add(textSoFar, "span", rounds.slice(0, i).map((x) => x.kept + x.added).join(""));
      if (done) {
        add(textSoFar, "span", r.kept, `border-bottom:3px solid ${colors.accepted}`);
        add(textSoFar, "span", r.added, `border-bottom:3px solid ${colors[r.kind]}`);
      }
      textSoFar.scrollTop = textSoFar.scrollHeight;
      row.replaceChildren();
      r.drafted.forEach((word, k) => {
        const outcome = k >= tested ? (done ? "never tested" : "waiting") : r.decisions[k] ? "accepted" : "rejected";
        const sign = { accepted: "✓ ", rejected: "✗ " }[outcome] ?? "";
        const lines = [`p ${r.p[k].toFixed(2)}  q ${r.q[k].toFixed(2)}`];
        if (k < tested) lines.push(`u ${r.u[k].toFixed(2)}`);
        cell(sign + word, [...lines, outcome], colors[outcome] ?? "currentColor", k >= tested);
      });
      if (done && r.own !== null) cell(r.own, [r.kind === "no draft" ? "target" : r.kind], colors[r.kind], false);
      status.textContent = say(frames[at]);
      slider.value = at;
      back.disabled = at === 0;
      next.disabled = nextRound.disabled = at === frames.length - 1;
    };
    draw();
  },
};
