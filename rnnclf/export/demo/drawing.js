// From strokes or a picture file to the pixels that the model was trained on. Pixels are one number for each
// colour of each point, row by row, from 0 to `unit`.

const FINE = 8; // points on a pixel's side when strokes are drawn, which are then averaged

/** The pixels of strokes, [[[x, y], ...], ...] in any unit, scaled and centred as in the training data. */
export function pixelsOfStrokes(strokes, picture) {
  const { pen } = picture;
  const place = fitted(strokes, pen);
  let grey = drawn(strokes, place, picture, [picture.width / 2, picture.height / 2]);
  if (pen.centre === "mass") {
    const [x, y] = centreOfMass(grey, picture);
    grey = drawn(strokes, place, picture, [picture.width - x, picture.height - y]);
  }
  return Uint8Array.from(grey, (share) => Math.round(share * picture.unit));
}

/** Maps a point of the strokes to pixels from the centre of their box. */
function fitted(strokes, pen) {
  const points = strokes.flat();
  const [left, right] = bounds(points.map(([x]) => x));
  const [top, bottom] = bounds(points.map(([, y]) => y));
  const [width, height] = pen.box.map((side) => side - pen.width);
  let across = width / Math.max(right - left, 1e-9);
  let down = height / Math.max(bottom - top, 1e-9);
  if (pen.stretch > 1) {
    down = Math.min(down, pen.stretch * across);
    across = Math.min(across, down);
  } else {
    across = down = Math.min(across, down);
  }
  if (right === left && bottom === top) across = down = 0; // a single dot
  return ([x, y]) => [(x - (left + right) / 2) * across, (y - (top + bottom) / 2) * down];
}

function bounds(numbers) {
  return numbers.reduce(([low, high], n) => [Math.min(low, n), Math.max(high, n)], [Infinity, -Infinity]);
}

/** The share of ink in each pixel. */
function drawn(strokes, place, { width, height, pen }, [middleX, middleY]) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width * FINE, height * FINE];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.setTransform(FINE, 0, 0, FINE, middleX * FINE, middleY * FINE);
  ink(context, strokes.map((stroke) => stroke.map(place)), pen.width);
  const fine = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const shares = new Float64Array(width * height);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const pixel = Math.floor(y / FINE) * width + Math.floor(x / FINE);
      shares[pixel] += fine[4 * (y * canvas.width + x)] / 255 / FINE ** 2;
    }
  }
  return shares;
}

/** Draws white strokes with round ends. */
export function ink(context, strokes, width) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "#fff";
  context.lineWidth = width;
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    context.stroke();
  }
}

function centreOfMass(shares, { width }) {
  let [sum, x, y] = [1e-9, 0, 0];
  shares.forEach((share, pixel) => {
    sum += share;
    x += share * ((pixel % width) + 0.5);
    y += share * (Math.floor(pixel / width) + 0.5);
  });
  return [x / sum, y / sum];
}

/** The pixels of a picture file, and a note if it had another size. */
export async function pixelsOfFile(file, picture) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${file.name} is not a picture that this browser can read.`);
  }
  const { width, height } = picture;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const other = bitmap.width !== width || bitmap.height !== height;
  const from = `${bitmap.width} × ${bitmap.height}`;
  return {
    pixels: inColours(rgba, picture),
    notes: other ? [`${file.name} was scaled from ${from} to ${width} × ${height} pixels.`] : [],
  };
}

function inColours(rgba, { colours, unit }) {
  const pixels = new Uint8Array((rgba.length / 4) * colours);
  for (let p = 0; p < rgba.length / 4; p++) {
    const [red, green, blue] = rgba.subarray(4 * p, 4 * p + 3);
    // the weights of ITU-R BT.601 in units of 2^-16, as rnnclf has them
    const luma = (red * 19595 + green * 38470 + blue * 7471 + 2 ** 15) >> 16;
    const values = colours === 1 ? [luma] : [red, green, blue];
    values.forEach((value, c) => { pixels[p * colours + c] = Math.round((value / 255) * unit); });
  }
  return pixels;
}

/** Shows pixels on a canvas of the picture's size. */
export function showPixels(canvas, pixels, { width, height, colours, unit }) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let p = 0; p < width * height; p++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * p + c] = Math.round((pixels[p * colours + (colours === 1 ? 0 : c)] / unit) * 255);
    }
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
