// Numbers, money and times in the user's own locale. A value that is not known is a dash.

const NONE = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);
const plain = new Intl.NumberFormat();
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const dollars = new Intl.NumberFormat(undefined, { style: "currency", currency: "USD" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const dayAndMonth = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

/** Whole numbers, grouped. */
export const count = (value) => (known(value) ? plain.format(value) : NONE);
/** Large numbers in few characters: 1.2M. */
export const short = (value) =>
  known(value) ? (Math.abs(value) < 10_000 ? tenths : compact).format(value) : NONE;
/** Rates: one digit after the point below 100. */
export const rate = (value) => (known(value) ? (value < 100 ? tenths : compact).format(value) : NONE);
export const share = (value) => (known(value) ? percent.format(value) : NONE);

/** US dollars: cents from one dollar on, below that the first three digits that are not zero. */
export function usd(value) {
  if (!known(value)) return NONE;
  if (value === 0 || Math.abs(value) >= 1) return dollars.format(value);
  const digits = Math.min(9, Math.max(2, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return new Intl.NumberFormat(undefined, {
    style: "currency",
    currency: "USD",
    minimumFractionDigits: 2,
    maximumFractionDigits: digits,
  }).format(value);
}

const units = Object.fromEntries(
  ["millisecond", "second", "minute", "hour"].map((unit) => [
    unit,
    [0, 1, 2].map(
      (digits) =>
        new Intl.NumberFormat(undefined, {
          style: "unit",
          unit,
          unitDisplay: "narrow",
          maximumFractionDigits: digits,
        }),
    ),
  ]),
);

/** A duration given in milliseconds, with about three digits. */
export function duration(ms) {
  if (!known(ms)) return NONE;
  if (ms < 1000) return units.millisecond[ms < 10 ? 1 : 0].format(ms);
  if (ms < 60_000) return units.second[ms < 10_000 ? 2 : 1].format(ms / 1000);
  if (ms < 3_600_000) return units.minute[1].format(ms / 60_000);
  return units.hour[1].format(ms / 3_600_000);
}

const dated = (format) => (iso) => {
  const date = new Date(iso ?? NaN);
  return Number.isNaN(date.getTime()) ? NONE : format.format(date);
};
/** Times in the user's time zone; days are those of UTC, as the accounts have them. */
export const time = dated(clock);
export const dateTime = dated(moment);
export const day = dated(calendar);
export const shortDay = dated(dayAndMonth);

/** How long ago: "5 minutes ago". */
export function ago(iso) {
  const seconds = (new Date(iso ?? NaN).getTime() - Date.now()) / 1000;
  if (Number.isNaN(seconds)) return NONE;
  for (const [unit, size] of [
    ["day", 86_400],
    ["hour", 3600],
    ["minute", 60],
  ]) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return relative.format(Math.round(seconds), "second");
}

/** The day in UTC, `days` before today, as the accounts name it: 2026-11-28. */
export const utcDay = (days = 0) => new Date(Date.now() - 86_400_000 * days).toISOString().slice(0, 10);

/** Names of causes and states for people: "upstream_error" -> "upstream error". */
export const words = (name) => String(name ?? "").replaceAll("_", " ");
