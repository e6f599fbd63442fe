// The page: it joins the parts. Which conversation is open is in `conversation.js`, questions and answers in `asking.js`, the line to
// write on in `composer.js`, what the server is doing meanwhile in `live.js`.

import * as asking from "./asking.js";
import * as chats from "./chats.js";
import * as composer from "./composer.js";
import * as talk from "./conversation.js";
import { button, element } from "./element.js";
import { whenKeyGiven } from "./key.js";
import * as keys from "./keys.js";
import * as live from "./live.js";
import { lasting } from "./notice.js";
import * as settings from "./settings.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);

/** Questions for a beginning that any model can try. */
const IDEAS = ["Explain how a heat pump works, in three sentences.", "Write a haiku about slow disks.", "What should I cook with lentils and lemons?"];

$("ideas").append(...IDEAS.map((idea) => element("li", "", button(idea, () => composer.fill(idea), ""))));

talk.listen({
  ...asking,
  settled: composer.settled,
  leave: () => { if (asking.running()) composer.forget(); asking.leave(); },
});
chats.listen({ open: talk.openId, fresh: talk.openNew, rename: talk.rename });
settings.listen({
  system: () => talk.chat.system ?? "",
  change: (text) => { talk.chat.system = text; talk.keep([]); },
});
store.onChange(talk.changed);
composer.listen();
keys.listen();
whenKeyGiven(asking.retryFailed);

$("fresh").addEventListener("click", talk.fresh);
// The address says which conversation is open.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("question").focus(); });
addEventListener("popstate", () => { if (location.hash.slice(1) !== talk.chat.id) talk.arrive(false); });
addEventListener("pagehide", () => {
  chats.settle();
  const now = asking.running();
  if (now) talk.keep([now.node], now.chat);
  store.saveDraft($("question").value);
});

composer.fill(store.loadDraft());
live.watch({ tick: asking.progress, status: (status) => { settings.defaults(status.defaults); talk.title(); talk.settle(); } });
store.keeps.then((does) => { if (!does) lasting("store", "This browser keeps nothing here: conversations last as long as this tab."); });
await store.adopt();
await talk.arrive(false);
