// Notes on a canvas, in the colours of the page.

export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// As sharp as the screen is; returns its context and its size in CSS pixels.
export const prepared = canvas => {
  const scale = devicePixelRatio, {width, height} = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return {context, width, height};
};

// `notes` are [onset, offset, pitch, velocity]; those before `seedSeconds` have the seed's colour.
export const drawNotes = (context, notes, {seconds, seedSeconds, top, width, height}) => {
  const pitches = notes.map(note => note[2]);
  const low = Math.min(48, ...pitches) - 2, high = Math.max(72, ...pitches) + 2;
  const step = height / (high - low), [seed, fresh] = [colour("--seed"), colour("--new")];
  for (const [onset, offset, pitch, velocity] of notes) {
    context.globalAlpha = 0.4 + 0.6 * velocity / 127;
    context.fillStyle = onset < seedSeconds ? seed : fresh;
    context.fillRect(width * onset / seconds, top + (high - pitch - 1) * step,
      Math.max(1, width * (offset - onset) / seconds), Math.max(2, step));
  }
  context.globalAlpha = 1;
};

export const drawRoll = (canvas, notes, {seconds, seedSeconds}) => {
  const {context, width, height} = prepared(canvas);
  drawNotes(context, notes, {seconds, seedSeconds, top: 0, width, height});
};
