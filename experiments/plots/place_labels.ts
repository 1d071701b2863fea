// Where the names of points go, so that they cover neither points nor each other.

/** A point of a panel, in pixels from its top left corner. */
export interface Point {
  readonly x: number;
  readonly y: number;
  readonly label: string;
}

export interface Placed {
  readonly dx: number;
  readonly dy: number;
  readonly align: "left" | "right" | "center";
}

const FONT_WIDTH = 6.2;
const HALF_HEIGHT = 6;
/** Half of a point's size, with some air. */
const POINT_RADIUS = 6;

/** Places to try, best first: beside the point, then above and below, then further away. */
const PLACES: readonly Placed[] = [0, -11, 11, -22, 22, -33, 33].flatMap((dy): Placed[] => [
  { dx: 9, dy, align: "left" },
  { dx: -9, dy, align: "right" },
  { dx: 0, dy: dy + (dy < 0 ? -3 : 14), align: "center" },
]);

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** Places labels one after the other, each where it covers least of what is there already. */
export function placeLabels(points: readonly Point[], width: number, height: number): Placed[] {
  const taken: Box[] = points.map(({ x, y }) => boxAround(x, y, POINT_RADIUS, POINT_RADIUS));
  return points.map((point) => {
    let best = PLACES[0];
    let least = Infinity;
    for (const place of PLACES) {
      const box = boxOf(point, place);
      const outside = box.left < 0 || box.right > width || box.top < 0 || box.bottom > height;
      const covered = taken.reduce((sum, other) => sum + overlap(box, other), outside ? 1e6 : 0);
      if (covered >= least) continue;
      best = place;
      least = covered;
    }
    taken.push(boxOf(point, best));
    return best;
  });
}

function boxOf({ x, y, label }: Point, { dx, dy, align }: Placed): Box {
  const half = (label.length * FONT_WIDTH) / 2;
  const side = align === "left" ? half : align === "right" ? -half : 0;
  return boxAround(x + dx + side, y + dy, half, HALF_HEIGHT);
}

function boxAround(x: number, y: number, halfWidth: number, halfHeight: number): Box {
  return { left: x - halfWidth, right: x + halfWidth, top: y - halfHeight, bottom: y + halfHeight };
}

function overlap(a: Box, b: Box): number {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}
