// Dates as Python's datetime.strftime() writes them, in English and in the time of this place.

const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
const MONTHS = "January February March April May June July August September October November December".split(" ");

const pad = (number: number, width = 2) => String(number).padStart(width, "0");
const spaced = (number: number) => String(number).padStart(2, " ");
const hour12 = (date: Date) => date.getHours() % 12 || 12;

/** Day of the year, from 0. */
function dayOfYear(date: Date): number {
  const start = Date.UTC(date.getFullYear(), 0, 1);
  return Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / 86_400_000);
}

/** Year and week of ISO 8601. */
function isoWeek(date: Date): [year: number, week: number] {
  const weekday = (date.getDay() + 6) % 7;
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() - weekday + 3);
  return [thursday.getFullYear(), Math.floor(dayOfYear(thursday) / 7) + 1];
}

const DIRECTIVES: Readonly<Record<string, (date: Date) => string>> = {
  a: (date) => DAYS[date.getDay()].slice(0, 3),
  A: (date) => DAYS[date.getDay()],
  b: (date) => MONTHS[date.getMonth()].slice(0, 3),
  B: (date) => MONTHS[date.getMonth()],
  c: (date) => formatDate(date, "%a %b %e %H:%M:%S %Y"),
  C: (date) => pad(Math.floor(date.getFullYear() / 100)),
  d: (date) => pad(date.getDate()),
  D: (date) => formatDate(date, "%m/%d/%y"),
  e: (date) => spaced(date.getDate()),
  f: (date) => pad(date.getMilliseconds() * 1000, 6),
  F: (date) => formatDate(date, "%Y-%m-%d"),
  g: (date) => pad(isoWeek(date)[0] % 100),
  G: (date) => String(isoWeek(date)[0]),
  h: (date) => formatDate(date, "%b"),
  H: (date) => pad(date.getHours()),
  I: (date) => pad(hour12(date)),
  j: (date) => pad(dayOfYear(date) + 1, 3),
  k: (date) => spaced(date.getHours()),
  l: (date) => spaced(hour12(date)),
  m: (date) => pad(date.getMonth() + 1),
  M: (date) => pad(date.getMinutes()),
  n: () => "\n",
  p: (date) => date.getHours() < 12 ? "AM" : "PM",
  P: (date) => date.getHours() < 12 ? "am" : "pm",
  r: (date) => formatDate(date, "%I:%M:%S %p"),
  R: (date) => formatDate(date, "%H:%M"),
  s: (date) => String(Math.floor(date.getTime() / 1000)),
  S: (date) => pad(date.getSeconds()),
  t: () => "\t",
  T: (date) => formatDate(date, "%H:%M:%S"),
  u: (date) => String(date.getDay() || 7),
  U: (date) => pad(Math.floor((dayOfYear(date) + 7 - date.getDay()) / 7)),
  V: (date) => pad(isoWeek(date)[1]),
  w: (date) => String(date.getDay()),
  W: (date) => pad(Math.floor((dayOfYear(date) + 7 - (date.getDay() + 6) % 7) / 7)),
  x: (date) => formatDate(date, "%m/%d/%y"),
  X: (date) => formatDate(date, "%H:%M:%S"),
  y: (date) => pad(date.getFullYear() % 100),
  Y: (date) => String(date.getFullYear()),
  // A date without a zone, as templates get it, has no name of one.
  z: () => "",
  Z: () => "",
  "%": () => "%",
};

/** Writes a date; `-` behind the percent sign leaves out leading zeros. @throws {RangeError} for an unknown directive */
export function formatDate(date: Date, format: string): string {
  return format.replace(/%(-?)(.?)/gs, (found, flag, letter) => {
    if (!Object.hasOwn(DIRECTIVES, letter)) throw new RangeError(`strftime has no ${found}`);
    const text = DIRECTIVES[letter](date);
    return flag ? text.replace(/^[0 ]+(?=.)/, "") : text;
  });
}
