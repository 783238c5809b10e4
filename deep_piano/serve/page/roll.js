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

// `notes` are [onset, offset, pitch, velocity]; those outside the span `fresh` have the seed's colour.
export const drawNotes = (context, notes, {seconds, fresh: [begin, end], top, width, height}) => {
  const pitches = notes.map(note => note[2]);
  const low = Math.min(48, ...pitches) - 2, high = Math.max(72, ...pitches) + 2;
  const step = height / (high - low), [seed, made] = [colour("--seed"), colour("--new")];
  for (const [onset, offset, pitch, velocity] of notes) {
    context.globalAlpha = 0.4 + 0.6 * velocity / 127;
    context.fillStyle = onset >= begin && onset < end ? made : seed;
    context.fillRect(width * onset / seconds, top + (high - pitch - 1) * step,
      Math.max(1, width * (offset - onset) / seconds), Math.max(2, step));
  }
  context.globalAlpha = 1;
};

export const drawRoll = (canvas, notes, {seconds, fresh}) => {
  const {context, width, height} = prepared(canvas);
  drawNotes(context, notes, {seconds, fresh, top: 0, width, height});
};
