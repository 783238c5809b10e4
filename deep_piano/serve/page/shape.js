// The controls: all that the page knows of them is the table that the server sends.

import {$, make} from "./ask.js";

let table = [];

const field = one => $(`control-${one.setting}`);

const numbers = () => {
  $("numbers").textContent = table.filter(one => one.ends.length && given(one)).map(one => {
    const factor = Number(field(one).value);
    const each = Object.entries(one.numbers).map(([name, value]) => `${name} ${(factor * value).toFixed(2)}`);
    return `${one.label}: ${each.join(", ") || factor}`;
  }).join(". ");
};

const drawn = one => {
  const id = `control-${one.setting}`;
  if (one.choices.length) {
    const option = (value, textContent = value) => make("option", {value, textContent});
    const select = make("select", {id}, ...(one.default === null ? [option("", "as in my playing")] : []),
      ...one.choices.map(value => option(value)));
    select.value = one.default ?? "";
    return make("label", {}, one.label, select);
  }
  // A setting that nobody has touched and that has no default is left to the engine.
  const untouched = one.default === null;
  const range = {id, min: one.least, max: one.most, step: one.step, value: one.default ?? ""};
  const touched = event => { event.target.dataset.touched = true; numbers(); };
  if (one.ends.length)
    return make("label", {},
      make("span", {className: "ends soft"}, ...one.ends.map(end => make("span", {textContent: end}))),
      make("input", {type: "range", ...range, ariaLabel: `${one.ends[0]} to ${one.ends[1]}`, oninput: untouched ? touched : numbers}));
  return make("label", {}, one.label, make("input", {type: "number", ...range}));
};

export const setUpShape = controls => {
  table = controls;
  for (const [id, more] of [["controls", false], ["controls-more", true]])
    $(id).replaceChildren(...table.filter(one => one.more === more).map(drawn));
  numbers();
};

const given = one => field(one).value !== "" &&
  (one.default !== null || !one.ends.length || field(one).dataset.touched);

// Without what the kind of piece, such as a remix that keeps the "rhythm", has no use for.
export const wanted = kind => Object.fromEntries(table.filter(one => given(one) && !one.useless.includes(kind)).map(one =>
  [one.setting, one.choices.length ? field(one).value : Number(field(one).value)]));
