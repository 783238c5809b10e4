// The controls: all that the page knows of them is the table that the server sends.

import {$, make} from "./ask.js";

let table = [];

const field = one => $(`control-${one.setting}`);

const numbers = () => {
  $("numbers").textContent = table.filter(one => one.ends.length).map(one => {
    const factor = Number(field(one).value);
    const each = Object.entries(one.numbers).map(([name, value]) => `${name} ${(factor * value).toFixed(2)}`);
    return `${one.label}: ${each.join(", ") || factor}`;
  }).join(". ");
};

const drawn = one => {
  const id = `control-${one.setting}`;
  if (one.choices.length) {
    const select = make("select", {id}, ...one.choices.map(value => make("option", {value, textContent: value})));
    select.value = one.default;
    return make("label", {}, one.label, select);
  }
  const range = {id, min: one.least, max: one.most, step: one.step, value: one.default};
  if (one.ends.length)
    return make("label", {},
      make("span", {className: "ends soft"}, ...one.ends.map(end => make("span", {textContent: end}))),
      make("input", {type: "range", ...range, ariaLabel: `${one.ends[0]} to ${one.ends[1]}`, oninput: numbers}));
  return make("label", {}, one.label, make("input", {type: "number", ...range}));
};

export const setUpShape = controls => {
  table = controls;
  for (const [id, more] of [["controls", false], ["controls-more", true]])
    $(id).replaceChildren(...table.filter(one => one.more === more).map(drawn));
  numbers();
};

export const wanted = () => Object.fromEntries(table.map(one =>
  [one.setting, one.choices.length ? field(one).value : Number(field(one).value)]));

export const set = (setting, value) => { if ($(`control-${setting}`)) $(`control-${setting}`).value = value; };
