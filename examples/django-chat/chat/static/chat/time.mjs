// Times as people say them, in their own time zone.

export function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

export function dayOf(at) {
  return recent(at) ?? new Date(at).toLocaleDateString([], { weekday: "long", year: "numeric", month: "long", day: "numeric" });
}

/** For a list: the time of today's, the day of what is older. */
export function brief(at) {
  const day = recent(at);
  return day === "Today" ? clock(at) : (day ?? new Date(at).toLocaleDateString([], { dateStyle: "medium" }));
}

function recent(at) {
  const day = new Date(at).toDateString();
  const ago = (days) => {
    const date = new Date();
    date.setDate(date.getDate() - days); // Not 24 hours: some days have 23 or 25.
    return date.toDateString();
  };
  if (day === ago(0)) return "Today";
  return day === ago(1) ? "Yesterday" : null;
}
