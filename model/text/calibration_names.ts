// Names of calibration texts, and how several are joined.

/** What the model writes itself. */
export const SELF = "self";

/** Texts to calibrate on, apart from `file:PATH`. */
export const CALIBRATION_TEXTS: readonly string[] = ["mix", SELF, "calibration", "wikitext2", "c4"];

/** What a calibration may be, for messages. */
export const CALIBRATION_GRAMMAR = `${
  CALIBRATION_TEXTS.join(", ")
} or file:PATH, or several different ones joined by +`;

/** A plus sign before the name of a text; others belong to the path before them. */
const JOINT = new RegExp(`\\+(?=file:|(?:${CALIBRATION_TEXTS.join("|")})(?:\\+|$))`);

/** The parts of `NAME+NAME+...`, whatever they are. */
export function splitJoined(names: string): string[] {
  return names.split(JOINT);
}

/** The texts of `NAME+NAME+...`. @throws {RangeError} for a name that isn't known or stands there twice */
export function splitCalibration(calibration: string): string[] {
  const names = splitJoined(calibration);
  const isKnown = (name: string) => CALIBRATION_TEXTS.includes(name) || /^file:./s.test(name);
  if (names.every(isKnown) && new Set(names).size === names.length) return names;
  throw new RangeError(`calibration is ${calibration}, must be ${CALIBRATION_GRAMMAR}`);
}
