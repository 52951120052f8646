// The list of rooms: times as the reader's clock has them.

import { brief } from "./time.mjs";

for (const time of document.querySelectorAll("time")) {
  time.title = new Date(time.dateTime).toLocaleString();
  time.textContent = brief(time.dateTime);
}
// Coming back to it, one wants to see what was written meanwhile.
addEventListener("pageshow", (event) => event.persisted && location.reload());
