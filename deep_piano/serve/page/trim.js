// Which part of the recording is continued.

import {$, ask, clock, kept, quietly, safely} from "./ask.js";
import {colour, drawNotes, prepared} from "./roll.js";

const SHORTEST_S = 2;
const audio = () => $("audio");

let seed = null, begin = 0, end = 0, asked = 0;

export const chosen = () => seed && {seed: seed.id, begin, end};

const draw = () => {
  if (!seed) return;
  const {context, width, height} = prepared($("wave"));
  const x = s => width * s / seed.seconds, middle = height * 0.22;
  context.fillStyle = colour("--window");
  context.fillRect(x(begin), 0, x(end) - x(begin), height);
  context.fillStyle = colour("--wave");
  seed.peaks.forEach((peak, n) => {
    const tall = Math.max(0.5, middle * peak);
    context.fillRect(width * n / seed.peaks.length, middle - tall, width / seed.peaks.length, 2 * tall);
  });
  drawNotes(context, seed.notes, {seconds: seed.seconds, fresh: [0, 0],
    top: height * 0.46, width, height: height * 0.52});
  context.fillStyle = colour("--accent");
  for (const edge of [begin, end]) context.fillRect(x(edge) - 1.5, 0, 3, height);
};

const told = async () => {  // the last question counts
  const mine = ++asked;
  const facts = await ask("GET", `/api/seeds/${seed.id}/window?begin=${begin}&end=${end}`);
  if (mine !== asked) return;
  $("heard").textContent = facts.text;
  for (const button of $("makes").children) button.disabled = facts.notes < 4;
};

const tenth = s => Math.round(10 * s) / 10;

const set = (from, to, held = "end") => {  // what is held stays, the other edge gives way
  const most = tenth(seed.seconds);
  const shortest = Math.min(SHORTEST_S, most);
  if (held === "end") [begin, end] = [Math.min(from, to - shortest), Math.max(to, shortest)];
  else [begin, end] = [Math.min(from, most - shortest), Math.max(to, from + shortest)];
  begin = tenth(Math.max(0, begin));
  end = tenth(Math.min(most, end));
  $("begin").value = begin;
  $("end").value = end;
  $("window").textContent = `${begin.toFixed(1)}–${end.toFixed(1)} s: ${(end - begin).toFixed(1)} s`;
  kept("window", `${begin} ${end}`);
  draw();
  quietly(told)();
};

const drag = event => {
  const box = $("wave").getBoundingClientRect();
  const at = one => seed.seconds * Math.min(1, Math.max(0, (one.clientX - box.left) / box.width));
  const start = at(event), near = 12 * seed.seconds / box.width, [b, e] = [begin, end];
  const kind = Math.abs(start - b) < near ? "begin" : Math.abs(start - e) < near ? "end"
    : start > b && start < e ? "move" : "new";
  const move = one => {
    const now = at(one);
    if (kind === "begin") set(now, end, "begin");
    else if (kind === "end") set(begin, now, "end");
    else if (kind === "new") set(Math.min(start, now), Math.max(start, now));
    else {
      const by = Math.min(seed.seconds - e, Math.max(-b, now - start));
      set(b + by, e + by);
    }
  };
  $("wave").setPointerCapture(event.pointerId);
  $("wave").onpointermove = move;
  $("wave").onpointerup = $("wave").onpointercancel = () => { $("wave").onpointermove = null; };
};

const hear = async () => {
  const sound = `/api/seeds/${seed.id}/sound`;
  if (audio().dataset.what === "seed" && !audio().paused) return audio().pause();
  if (!audio().src.endsWith(sound)) audio().src = sound;
  audio().dataset.what = "seed";
  audio().currentTime = begin;
  await audio().play();
};

const follow = () => {
  const mine = audio().dataset.what === "seed" && !audio().paused;
  $("hear").textContent = mine ? "Pause" : "Listen";
  $("wave-here").hidden = !mine;
  if (!mine || !seed) return;
  if (audio().currentTime >= end) audio().pause();
  $("wave-here").style.left = `${100 * audio().currentTime / seed.seconds}%`;
  requestAnimationFrame(follow);
};

export const showSeed = async id => {
  seed = await ask("GET", `/api/seeds/${id}`);
  const before = kept("seed") === id && kept("window");
  kept("seed", id);
  $("trim").hidden = $("shape").hidden = false;
  $("seed-name").textContent = seed.name;
  $("seed-part").textContent = seed.from_s
    ? `its last minute, from ${clock(seed.from_s)} on` : `${seed.seconds.toFixed(1)} s`;
  for (const name of ["begin", "end"]) $(name).max = tenth(seed.seconds);
  set(...(before ? before.split(" ").map(Number) : seed.window));
};

export const setUpTrim = () => {
  $("begin").oninput = () => set(Number($("begin").value), end, "begin");
  $("end").oninput = () => set(begin, Number($("end").value), "end");
  $("wave").onpointerdown = drag;
  $("hear").onclick = safely(hear);
  for (const name of ["play", "pause", "ended"]) audio().addEventListener(name, follow);
  new ResizeObserver(draw).observe($("wave"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
};
