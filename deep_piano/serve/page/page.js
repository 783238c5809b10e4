// The page: what is shown follows what the server tells.

import {$, ask, follow, kept, make, quietly, report, safely, say, tell} from "./ask.js";
import {closePiece, makeAnother, setUpListen, showPiece, shownPiece} from "./listen.js";
import {setUpPlay, whenKept} from "./play.js";
import {setUpShape, wanted} from "./shape.js";
import {chosen, setUpTrim, showSeed} from "./trim.js";

const jobs = new Map();
let pieces = [];

// ------------------------------------------------------------------ jobs

const active = job => job.state === "waiting" || job.state === "running";

const drawJobs = () => {
  const going = [...jobs.values()].filter(active);
  $("jobs").hidden = !going.length;
  const drawn = new Map([...$("jobs").children].map(row => [row.dataset.job, row]));
  $("jobs").replaceChildren(...going.map(job => {
    const row = drawn.get(job.job) ?? make("div", {className: "job row"},
      make("progress", {max: 100, ariaLabel: `Progress of ${job.about.name}`}), make("span", {className: "clock"}),
      make("button", {textContent: "Cancel", ariaLabel: `Cancel ${job.about.name}`,
        onclick: safely(() => ask("DELETE", `/api/jobs/${job.job}`))}));
    row.dataset.job = job.job;
    row.children[0].value = job.percent;
    const doing = job.state === "waiting" ? "waiting" : `${job.stage} ${job.percent} %`;
    row.children[1].textContent = `${job.about.name}: ${doing}`;
    return row;
  }));
};

// What this tab asked for: each failure is told, and the last of what is there is opened.
const mine = () => JSON.parse(kept("jobs") ?? "[]");

const settle = async () => {
  let open = null;
  const left = mine().filter(id => {
    const job = jobs.get(id);
    if (!job || active(job)) return true;
    if (job.state === "failed") report(new Error(job.message));
    if (job.state === "done") open = job;
    return false;
  });
  if (open && left.length) left.unshift(open.job);  // what comes last may fail
  kept("jobs", JSON.stringify(left));
  if (!open || left.length) return;
  if (open.kind === "look") await showSeed(open.result.seed);
  else await openPiece(open.result.piece);
};

const asked = id => {
  kept("jobs", JSON.stringify([...mine(), id]));
  quietly(settle)();  // it may have ended already
};

// ------------------------------------------------------------------ pieces

const openPiece = async id => {
  await refresh();
  const piece = pieces.find(one => one.id === id);
  if (piece) await showPiece(piece);
};

const remove = async piece => {
  if (!confirm(`Delete “${piece.title}” and its takes?`)) return;
  await ask("DELETE", `/api/pieces/${piece.id}`);
  closePiece(piece.id);
};

const drawPieces = () => {
  $("pieces").replaceChildren(...pieces.map(piece => {
    const starred = piece.takes.some(take => take.starred) ? "★ " : "";
    const made = new Date(1000 * piece.made).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
    return make("li", {className: "row"},
      make("button", {className: "name", textContent: starred + piece.title, onclick: safely(() => showPiece(piece))}),
      make("span", {className: "soft", textContent: `${made}, ${piece.takes.length} take${piece.takes.length > 1 ? "s" : ""}`}),
      make("button", {textContent: "Delete", ariaLabel: `Delete ${piece.title}`, onclick: safely(() => remove(piece))}));
  }));
  if (!pieces.length) $("pieces").append(make("li", {className: "soft", textContent: "None yet."}));
};

const refresh = async () => {
  const state = await ask("GET", "/api/state");
  pieces = state.pieces;
  drawPieces();
  if (shownPiece() && !pieces.some(one => one.id === shownPiece().id)) closePiece(shownPiece().id);
  return state;
};

// ------------------------------------------------------------------ what is asked for

const compose = async remix => {
  const facts = {...chosen(), ...(remix && {remix}), controls: wanted(remix)};
  asked((await tell("POST", "/api/pieces", facts)).job);
};

const changed = quietly(async facts => {
  if (facts.kind === "pieces") return refresh();
  jobs.set(facts.job, facts);
  drawJobs();
  if (facts.kind === "piece" && facts.state === "done") await refresh();
  return settle();
});

const start = async () => {
  if (location.search) history.replaceState(null, "", "/");  // the token: the cookie is there
  const state = await refresh();
  $("stored").textContent = `Stored in ${state.folder}. ${state.where}`;
  setUpShape(state.controls);
  setUpPlay({asked, example: async () => asked((await ask("POST", "/api/example")).job)});
  setUpTrim();
  setUpListen(state.score, asked);
  for (const button of $("makes").children)
    button.onclick = safely(() => compose(button.dataset.remix));
  $("again").onclick = safely(makeAnother);
  for (const job of state.jobs) jobs.set(job.job, job);
  follow(state.last, {changed, reload: () => whenKept(() => location.reload())});
  drawJobs();
  // A reload goes on where this tab was.
  if (kept("seed")) await showSeed(kept("seed")).catch(() => kept("seed", null));
  const piece = pieces.find(one => one.id === kept("piece"));
  if (piece) await showPiece(piece);
  kept("jobs", JSON.stringify(mine().filter(id => jobs.has(id))));  // the server may be another
  await settle();
};

start().catch(say);
