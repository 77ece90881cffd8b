// Windows as rnnclf cuts them from recordings: of `size` steps, one every `step`, none across a hole in time.

const HOLE = 5; // an interval is a hole if it is this many times as long as the 95th percentile of all

export function inWindows(recordings, { size, step }, notes) {
  const longest = HOLE * percentile(recordings.flatMap(({ elapsed, steps }) => elapsed?.slice(1, steps) ?? []), 0.95);
  const windows = recordings.flatMap((recording) => {
    const found = pieces(recording, longest).flatMap(([begin, end]) => starts(begin, end, size, step));
    if (!found.length) notes.push(`'${recording.id}' has no room for a window of ${size} steps, and is left out.`);
    return found.map((first) => part(recording, first, size));
  });
  if (!windows.length) throw new Error(`No recording has ${size} steps in a row, which the model reads at a time.`);
  return windows;
}

/** The parts [begin, end) of a recording between holes. */
function pieces({ steps, elapsed }, longest) {
  const borders = [0];
  for (let step = 1; step < steps; step++) if (elapsed && elapsed[step] > longest) borders.push(step);
  return borders.map((begin, b) => [begin, borders[b + 1] ?? steps]);
}

function starts(begin, end, size, step) {
  const found = [];
  for (let first = begin; first + size <= end; first += step) found.push(first);
  return found;
}

function part({ id, steps, values, elapsed, lines }, first, size) {
  const width = values.length / steps;
  return {
    id: `${id}:${first}`,
    steps: size,
    values: values.slice(first * width, (first + size) * width),
    elapsed: elapsed && [0, ...elapsed.slice(first + 1, first + size)],
    lines: lines.length > 1 ? lines.slice(first, first + size) : lines,
  };
}

/** As NumPy: a line between the two nearest; infinite if there are no numbers. */
function percentile(numbers, share) {
  if (!numbers.length) return Infinity;
  const sorted = Float64Array.from(numbers).sort();
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  return sorted[below] + (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (place - below);
}
