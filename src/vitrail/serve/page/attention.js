// Who looks where: the attention of one layer as the service sends it, and its drawing over the picture.

/** The attention of a layer among the places of its grid, and of the token that stands for the whole image. */
export class Attention {
  constructor(answer) {
    [this.rows, this.columns] = answer.grid;
    this.heads = answer.heads;
    this.places = this.rows * this.columns;
    this.looks = new Map(); // those computed, by place and head
    this.among = bytes(answer.attention); // (heads, places, places), each row 255 at its largest
    this.largest = floats(answer.largest); // (heads, places), what 255 stands for
    this.prefix = answer.prefix_row === null ? null : bytes(answer.prefix_row); // (heads, places)
    this.prefixLargest = answer.prefix_row === null ? null : floats(answer.prefix_largest); // (heads)
  }

  /**
   * Where a place looks, or, for null, the whole image. Head 0 is the mean of all. Without a class token the whole
   * image looks as its places do on average. `light` has one number a place in 0 … 1, the largest being 1, which is at
   * the place `strongest` and stands for the share `most` of all attention.
   */
  look(place, head) {
    const key = `${place} ${head}`;
    if (!this.looks.has(key)) this.looks.set(key, this.#compute(place, head));
    return this.looks.get(key);
  }

  #compute(place, head) {
    const shares = new Float32Array(this.places);
    const heads = head === 0 ? [...Array(this.heads).keys()] : [head - 1];
    for (const each of heads) this.#add(shares, each, place);
    const rows = heads.length * (place === null && !this.prefix ? this.places : 1);
    const strongest = shares.reduce((best, share, at) => (share > shares[best] ? at : best), 0);
    const top = shares[strongest];
    return { light: shares.map((share) => (top > 0 ? share / top : 0)), strongest, most: top / rows };
  }

  #add(shares, head, place) {
    if (place === null && this.prefix) {
      addRow(shares, this.prefix, head * this.places, this.prefixLargest[head]);
      return;
    }
    const queries = place === null ? [...shares.keys()] : [place];
    for (const query of queries) {
      const row = head * this.places + query;
      addRow(shares, this.among, row * this.places, this.largest[row]);
    }
  }

  /** The place under a point of the picture, given in 0 … 1 from its left and its top. */
  placeAt(x, y) {
    const within = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return within(y, this.rows) * this.columns + within(x, this.columns);
  }

  /** "row 2, column 7", counted from 1. */
  name(place) {
    return `row ${Math.floor(place / this.columns) + 1}, column ${(place % this.columns) + 1}`;
  }

  /** The place that an arrow key, Home or End leads to; null for another key. */
  step(place, key) {
    const row = Math.floor(place / this.columns);
    const column = place % this.columns;
    const moves = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [row, 0],
      End: [row, this.columns - 1],
    };
    if (!(key in moves)) return null;
    const [r, c] = moves[key];
    return Math.min(this.rows - 1, Math.max(0, r)) * this.columns + Math.min(this.columns - 1, Math.max(0, c));
  }
}

/**
 * Draw a look as panes of glass: the more a pane is looked at, the more light comes through it.
 * `query` is framed; null for the whole image, which has no place.
 */
export function drawPanes(context, attention, light, query, strength, accent) {
  const { width, height } = context.canvas;
  const w = width / attention.columns;
  const h = height / attention.rows;
  light.forEach((share, place) => {
    context.fillStyle = glass(share, strength);
    const [left, top] = [(place % attention.columns) * w, Math.floor(place / attention.columns) * h];
    context.fillRect(left, top, w, h);
  });
  drawLead(context, attention, w, h, strength);
  if (query === null) return;
  frame(context, (query % attention.columns) * w, Math.floor(query / attention.columns) * h, w, h, accent);
}

// From dark glass over clear glass to a warm light.
function glass(share, strength) {
  if (share < 0.5) return `rgba(12, 16, 34, ${strength * 0.92 * (1 - 2 * share)})`;
  return `rgba(255, 176, 46, ${strength * 0.7 * (2 * share - 1)})`;
}

function drawLead(context, attention, w, h, strength) {
  context.strokeStyle = `rgba(12, 16, 34, ${0.2 + 0.3 * strength})`;
  context.lineWidth = Math.max(1, Math.min(w, h) / 40);
  context.beginPath();
  for (let column = 1; column < attention.columns; column += 1) {
    context.moveTo(column * w, 0);
    context.lineTo(column * w, context.canvas.height);
  }
  for (let row = 1; row < attention.rows; row += 1) {
    context.moveTo(0, row * h);
    context.lineTo(context.canvas.width, row * h);
  }
  context.stroke();
}

function frame(context, left, top, w, h, accent) {
  const line = Math.max(2, context.canvas.width / 200);
  context.lineWidth = 2 * line;
  context.strokeStyle = "#fff";
  context.strokeRect(left, top, w, h);
  context.lineWidth = line;
  context.strokeStyle = accent;
  context.strokeRect(left, top, w, h);
}

function addRow(shares, rows, start, largest) {
  for (let key = 0; key < shares.length; key += 1) shares[key] += (rows[start + key] * largest) / 255;
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function floats(base64) {
  const view = new DataView(bytes(base64).buffer); // little-endian whatever the machine
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
