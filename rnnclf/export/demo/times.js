// Times as rnnclf reads them: numbers, dates, times of day. What is no number becomes nanoseconds, BigInt.

const CLOCK =
  "(?<hours>\\d{1,2}):(?<minutes>[0-5]\\d)(?::(?<seconds>[0-5]\\d)(?:[.,](?<fraction>\\d{1,9})\\d*)?)?" +
  "(?:\\s*(?<half>[AaPp])\\.?[Mm]\\.?)?";
const ZONE = "(?:Z|(?<sign>[+-])(?<zoneHours>\\d\\d):?(?<zoneMinutes>\\d\\d))?";
const [YEAR, MONTH, DAY] = ["(?<year>\\d{4})", "(?<month>\\d{1,2})", "(?<day>\\d{1,2})"];
const dated = (...parts) => new RegExp(`^${parts.join("[-/.]")}(?:(?:T|,?\\s+)${CLOCK}\\s*${ZONE})?$`);
const WRITTEN = {
  ymd: dated(YEAR, MONTH, DAY),
  dmy: dated(DAY, MONTH, YEAR),
  mdy: dated(MONTH, DAY, YEAR),
  clock: new RegExp(`^${CLOCK}$`),
};
const SECOND = 10n ** 9n;
const EXACT = 2 ** 53;

/** The times of a column of cells, all numbers or all BigInt. */
export function timesOf(texts, lines, name, column, format) {
  const cells = texts.map((text) => text.trim());
  const kind = kindOf(cells, `${name}, column '${column}'`, format);
  return cells.map((cell, row) => {
    const time = parsed(cell, kind);
    if (time !== undefined) return time;
    const what = cell ? `: '${cell.slice(0, 40)}' is not a time` : " is empty";
    throw new Error(`${name}, line ${lines[row]}, column '${column}'${what}: write numbers, or dates like 2024-12-31T23:59:59.`);
  });
}

/** The time between two times, dates in seconds, numbers in their own unit. */
export function between(earlier, later, kind) {
  if (typeof later === "number") return later - earlier;
  return Number(later - earlier) / (kind === "whole" ? 1 : Number(SECOND));
}

export function kindOf(cells, place, format) {
  const some = cells.filter(Boolean);
  if (some.some((cell) => isNumber(cell))) {
    return some.every((cell) => /^[+-]?\d+$/.test(cell)) && some.some((cell) => Math.abs(Number(cell)) > EXACT)
      ? "whole" : "number";
  }
  if (format) throw new Error(`${place} has dates in the form ${format}, which this page does not read: use rnnclf predict.`);
  if (some.some((cell) => /^\d{1,2}:\d\d/.test(cell))) return "clock";
  const days = some.map((cell) => /^(\d{1,2})([-/.])(\d{1,2})[-/.]\d{4}(?:\D|$)/.exec(cell)).filter(Boolean);
  if (!days.length) return "ymd";
  const [dayFirst, monthFirst] = [1, 3].map((part) => days.some((found) => Number(found[part]) > 12));
  if (dayFirst !== monthFirst) return dayFirst ? "dmy" : "mdy";
  if (!dayFirst && days.every((found) => found[2] === ".")) return "dmy";
  throw new Error(`${place}: '${some[0]}' does not tell whether the day or the month comes first. Write dates like 2024-12-31.`);
}

function isNumber(cell) {
  return cell !== "" && Number.isFinite(Number(cell)) && !/^[+-]?0[xob]/i.test(cell);
}

function parsed(cell, kind) {
  if (kind === "number") return isNumber(cell) ? Number(cell) : undefined;
  if (kind === "whole") return /^[+-]?\d+$/.test(cell) ? BigInt(cell) : undefined;
  const found = WRITTEN[kind].exec(cell)?.groups;
  if (!found) return undefined;
  let hours = Number(found.hours ?? 0);
  if (found.half) hours = (hours % 12) + (found.half.toLowerCase() === "p" ? 12 : 0);
  if (hours >= 24) return undefined;
  const clock = BigInt((hours * 60 + Number(found.minutes ?? 0)) * 60 + Number(found.seconds ?? 0));
  const time = clock * SECOND + BigInt((found.fraction ?? "").padEnd(9, "0"));
  if (kind === "clock") return time;
  const [year, month, day] = [found.year, found.month, found.day].map(Number);
  const date = new Date(Date.UTC(year, month - 1, day));
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return undefined;
  const zone = BigInt((Number(found.zoneHours ?? 0) * 60 + Number(found.zoneMinutes ?? 0)) * 60) * SECOND;
  return BigInt(date.getTime()) * 10n ** 6n + time - (found.sign === "-" ? -zone : zone);
}
