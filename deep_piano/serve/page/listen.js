// The takes of a piece, side by side: play, keep up to here, star, rename, download.

import {$, ask, clock, kept, make, safely, tell} from "./ask.js";
import {drawRoll} from "./roll.js";
import {drawSpan, showSpan} from "./span.js";
import {wanted} from "./shape.js";

const audio = () => $("audio");
let piece = null, score = false, shown = [], current = null, asked = () => {};

const at = view =>
  view === current && audio().dataset.what === "piece" ? audio().currentTime : view.mark;

const place = view => {  // the playhead, and the moment up to which a take may be kept
  const now = Math.min(view.take.seconds, at(view));
  view.mark = now;
  view.here.style.left = `${100 * now / view.take.seconds}%`;
  view.roll.setAttribute("aria-valuenow", now.toFixed(1));
  view.roll.setAttribute("aria-valuetext", clock(now));
  view.clock.textContent = `${clock(now)} of ${clock(view.take.seconds)}`;
  view.keep.textContent = `Keep up to ${clock(now)} and continue differently`;
  view.keep.disabled = now < 2 || now > view.take.seconds - 5;
};

const frame = () => {
  const playing = audio().dataset.what === "piece" && !audio().paused;
  for (const view of shown) {
    const mine = view === current && playing;
    view.play.textContent = mine ? "Pause" : "Play";
    view.play.setAttribute("aria-label", `${mine ? "Pause" : "Play"} take ${view.take.take}`);
    view.element.classList.toggle("current", view === current);
  }
  if (current && audio().dataset.what === "piece") place(current);
  if (playing) requestAnimationFrame(frame);
};

const load = view => {  // a switch goes on at the same place
  const source = `/api/pieces/${piece.id}/${view.take.take}/mp3?play`;
  const loaded = audio().src.endsWith(source);  // as it is when its piece is opened again
  if (loaded && view === current) return;
  if (!loaded) audio().src = source;
  audio().dataset.what = "piece";
  audio().currentTime = view.mark;
  current = view;
};

const toggle = async view => {
  if (view === current && audio().dataset.what === "piece" && !audio().paused) return audio().pause();
  if (current && view !== current && audio().dataset.what === "piece") view.mark = audio().currentTime;
  load(view);
  await audio().play();
};

const seek = (view, s) => {
  view.mark = Math.min(view.take.seconds, Math.max(0, s));
  load(view);
  audio().currentTime = view.mark;
  place(view);
  frame();
};

// With the next random state that none of the same has yet, which the server knows.
const compose = async (of, take, controls) => {
  audio().pause();
  const next = {...controls, random_state: (take.random_state + 1) % 2 ** 32};
  asked((await tell("POST", "/api/pieces", {...of, controls: next, another: true})).job);
};

const change = (take, kept) => {  // make a part of a take anew
  const controls = wanted(kept.between && "between");
  controls.seconds = Math.max(controls.seconds ?? 0, take.seconds);
  return compose({piece: piece.id, take: take.take, ...kept}, take, controls);
};

const keep = view => change(view.take, {keep_until: Number(view.mark.toFixed(2))});

export const makeAnother = async () => {  // as the piece that is shown was made
  if (!piece) throw new Error("Choose a recording first.");
  const {takes: [take], seed: {id}, window: {seed_start, seed_seconds, seed_end, remix, keep_until, between}} = piece;
  if (between) return change(take, {between});
  if (keep_until) return change(take, {keep_until});
  const begin = seed_start - (await ask("GET", `/api/seeds/${id}`)).from_s;
  const end = begin + (seed_seconds ?? seed_end - seed_start);
  await compose({seed: id, begin, end, ...(remix && {remix})}, take, wanted(remix));
};

const star = async view => {
  piece = await tell("PATCH", `/api/pieces/${piece.id}`, {starred: view.take.take});
  view.take = piece.takes.find(take => take.take === view.take.take);
  starred(view);
};

const starred = view => {
  view.star.textContent = view.take.starred ? "★" : "☆";
  view.star.setAttribute("aria-pressed", view.take.starred);
};

const described = take => {
  const {continuation_key: key, continuation_key_certainty: certainty} = take.figures;
  return `${take.notes} notes, ${key}${certainty === "none" ? "" : ` (${certainty})`}`;
};

const origin = ({seed: {name}, window: made}) => {
  if (made.between) return `Continues ${name}, with ${made.between.map(clock).join("–")} made anew.`;
  if (made.keep_until) return `Continues ${name}, kept up to ${clock(made.keep_until)}.`;
  const seconds = made.seed_seconds ?? made.seed_end - made.seed_start;
  const what = made.remix ? `Keeps the ${made.remix} of` : "Continues";
  return `${what} ${name} from ${made.seed_start.toFixed(1)} s on, ${seconds.toFixed(1)} s.`;
};

const drawTake = (take, notes) => {
  const name = `take ${take.take}`;
  const canvas = make("canvas", {ariaHidden: "true"});
  const here = make("div", {className: "here"});
  const roll = make("div", {className: "roll", role: "slider", tabIndex: 0,
    ariaLabel: `Position in ${name}`, ariaValueMin: "0", ariaValueMax: String(take.seconds)}, canvas, here);
  const link = (kind, text) => make("a", {href: `/api/pieces/${piece.id}/${take.take}/${kind}`,
    textContent: text, download: "", ariaLabel: `Download ${name} as ${text}`});
  const view = {take, roll, here, mark: 0, canvas, notes,
    play: make("button", {textContent: "Play"}),
    star: make("button", {className: "star", ariaLabel: `Star ${name}`}),
    keep: make("button"), clock: make("span", {className: "clock soft"})};
  view.play.onclick = safely(() => toggle(view));
  view.star.onclick = safely(() => star(view));
  view.keep.onclick = safely(() => keep(view));
  const span = drawSpan(view, safely(between => change(view.take, {between})));
  roll.onclick = event => {
    const box = roll.getBoundingClientRect();
    seek(view, take.seconds * (event.clientX - box.left) / box.width);
  };
  roll.onkeydown = event => {
    const by = {ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10}[event.key];
    const to = {Home: 0, End: take.seconds}[event.key] ?? (by && at(view) + by);
    if (to === undefined) return;
    event.preventDefault();
    seek(view, to);
  };
  const links = [["mp3", "mp3"], ["wav", "WAV"], ["midi", "MIDI"], ...(score ? [["score", "MusicXML"]] : []),
    ["page", "one page that plays"]].map(([kind, text]) => link(kind, text));
  view.element = make("div", {className: "take"},
    make("div", {className: "row"}, view.play, view.star, make("h3", {textContent: `Take ${take.take}`}), view.clock),
    roll, make("p", {className: "soft", textContent: described(take)}),
    make("p", {}, view.keep), span, make("p", {className: "row"}, ...links));
  starred(view);
  return view;
};

const draw = () => {
  for (const view of shown)
    drawRoll(view.canvas, view.notes, {seconds: view.take.seconds,
      fresh: view.take.new ?? [piece.seed_seconds, view.take.seconds]});
};

export const showPiece = async found => {
  const rolls = await Promise.all(found.takes.map(take => ask("GET", `/api/pieces/${found.id}/${take.take}/roll`)));
  if (audio().dataset.what === "piece") audio().pause();
  [piece, current] = [found, null];
  kept("piece", found.id);
  shown = piece.takes.map((take, n) => drawTake(take, rolls[n]));
  $("takes").replaceChildren(...shown.map(view => view.element));
  $("title").value = piece.title;
  $("piece-facts").textContent = origin(piece);
  $("listen").hidden = false;
  shown.forEach(place);
  for (const view of shown) showSpan(view, piece.window.between);
  frame();
  draw();
};

export const closePiece = id => {
  if (piece?.id !== id) return;
  if (audio().dataset.what === "piece") audio().pause();
  kept("piece", null);
  [piece, current, shown] = [null, null, []];
  $("listen").hidden = true;
};

export const shownPiece = () => piece;

export const setUpListen = (withScore, job) => {
  [score, asked] = [withScore, job];
  for (const name of ["play", "pause", "ended", "seeked"]) audio().addEventListener(name, frame);
  $("title").onchange = safely(async () => {
    piece = await tell("PATCH", `/api/pieces/${piece.id}`, {title: $("title").value});
    $("title").value = piece.title;
  });
  new ResizeObserver(draw).observe($("takes"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
};
