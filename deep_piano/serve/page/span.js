// The span of a take that is to be made anew: two sliders, and what they mean on its roll.

import {clock, make} from "./ask.js";

const SHORTEST_S = 1, LONGEST_S = 60, USUAL_S = 10, FIRST_S = 2;

const draw = view => {
  const {span: {begin, end, box, go, shade}, take} = view;
  const [from, to] = [begin, end].map(field => Number(field.value));
  shade.hidden = !box.open;
  shade.style.left = `${100 * from / take.seconds}%`;
  shade.style.width = `${100 * (to - from) / take.seconds}%`;
  go.textContent = `Make ${clock(from)}–${clock(to)} anew`;
  for (const field of [begin, end]) field.setAttribute("aria-valuetext", clock(field.value));
};

const set = (view, from, to, held) => {  // what is held stays, the other edge gives way
  const most = view.take.seconds, {begin, end} = view.span;
  const fit = (s, low, high) => Math.min(Math.max(s, low), high);
  if (held === "end") from = fit(from, to - LONGEST_S, to - SHORTEST_S);
  else to = fit(to, from + SHORTEST_S, from + LONGEST_S);
  begin.value = fit(from, FIRST_S, most - SHORTEST_S);
  end.value = fit(to, FIRST_S + SHORTEST_S, most);
  draw(view);
};

// The span that was made anew before, or what comes after the playhead, beyond the seed.
export const showSpan = (view, between) => {
  if (between) view.span.chosen = view.span.box.open = true;
  const from = Math.max(view.mark, view.take.new?.[0] ?? 0);
  set(view, ...(between ?? [from, from + USUAL_S]));
};

export const drawSpan = (view, anew) => {
  const slider = text => make("input", {type: "range", className: "grow", step: 0.1, min: FIRST_S,
    max: view.take.seconds, ariaLabel: `${text}, take ${view.take.take}`});
  const begin = slider("Span begins"), end = slider("Span ends");
  const go = make("button"), shade = make("div", {className: "span", hidden: true});
  const box = make("details", {}, make("summary", {textContent: "Make a span anew"}),
    make("div", {className: "row"}, make("label", {className: "row grow"}, "from ", begin),
      make("label", {className: "row grow"}, "to ", end), go));
  const span = view.span = {begin, end, box, go, shade, chosen: false};
  view.roll.append(shade);
  const now = held => set(view, Number(begin.value), Number(end.value), held);
  begin.oninput = () => now("begin");
  end.oninput = () => now("end");
  box.ontoggle = () => {
    if (box.open && !span.chosen) showSpan(view);
    span.chosen ||= box.open;
    draw(view);
  };
  go.onclick = () => anew([begin, end].map(field => Number(field.value)));
  return box;
};
