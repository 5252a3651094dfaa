"""Where our SuperLink answers otherwise than the stock one, and why.

Steps are named `scenario/step`; `*` stands for anything. `docs/compatibility.md` is written from
this table, and the tests hold both against what the server does: a difference that is not listed
fails, and so does a listed one that is none.
"""

from __future__ import annotations

DIFFERENCES: dict[str, list[str]] = {
    # --- delivery ---------------------------------------------------------------------------------
    "An instruction is handed out once its whole object tree is here, and again until the node has"
    " touched it: a lost answer to pull-messages loses nothing.": [
        "delivery/one/pull-untouched",
        "announced-first/pull-before-objects",
        "announced-first/pull-after-objects",
        "push-instructions/good/pull-before-objects",
        "push-instructions/list",
        "replies/failing.pull",
    ],
    "The objects of an instruction live until it is answered, not until the node confirms it: a"
    " node that dies after its confirmation can be given the same instruction again. So a later"
    " instruction of the same run need not bring them again.": [
        "delivery/one/object-confirmed",
        "objects/confirmed/*",
        "replies/src-*/ask.push",
        "replies/dst-*/ask.push",
        "replies/no-reply-to/ask.push",
        "replies/unknown-reply-to/ask.push",
        "replies/other-run/ask.push",
        "replies/no-type/ask.push",
        "replies/other-type/ask.push",
        "replies/odd-type/ask.push",
        "pull-replies/done.push",
        "stop-in-the-middle/waiting/push",
    ],
    "A reply, or the error that stands for it, is shown once its whole object tree is here, and"
    " again until it is confirmed: a lost answer to pull-messages loses nothing.": [
        "announced-first/back/pull-before-objects",
        "announced-first/back/pull-after-objects",
        "objects/back/pull-before-objects",
        "objects/back/pull",
        "delivery/one-back/pull-again",
        "replies/other-type/seen",
        "replies/other-group/seen",
        "pull-replies/two-ids",
        "pull-replies/same-id-twice",
        "pull-replies/waiting/with-unknown",
        "pull-replies/offline/pull-again",
        "pull-replies/short-reply/pull-again",
        "message-to-superlink/pull-again",
    ],
    "A message to the SuperLink itself is answered with an error, and echoed, to the one who asks"
    " for it; Flower echoes it once to whoever pulls next, and has then forgotten it.": [
        "message-to-superlink/second/pull",
        "message-to-superlink/second/pull-others",
    ],
    "A complete reply is delivered even if its node has gone since.": [
        "pull-replies/done/pull",
    ],
    "push-object of something this peer has delivered already is `stored`: an answer was lost, and"
    " nothing is wrong.": [
        "objects/first/again",
        "objects/after-end",
        "objects/after-end/no-session",
        "objects/back/root-again",
    ],
    "The time a reply took counts once, however often its push is repeated.": [
        "replies/list",
    ],
    # --- who sees what ----------------------------------------------------------------------------
    "`objects_to_push` of a node's reply never leaves out an object because someone else sent the"
    " same one, so no node learns what others sent.": [
        "shared-objects/from-a/push",
        "shared-objects/from-b/push",
        "shared-objects/echo-back/push",
        "replies/other-group/push",
        "replies/good/push",
        "replies/good/push-again",
        "replies/good/push-third",
        "replies/unasked/reply",
        "pull-replies/short-reply.push",
        "stop-in-the-middle/back/push",
        "two-runs/back-2.push",
    ],
    "What a run sends belongs to that run: no other run is spared sending the same object, reads"
    " it, or can ask for its messages (Flower: 500).": [
        "objects/pull/other-task",
        "objects/pull/node-other-run",
        "pull-replies/waiting/other-run",
        "two-runs/push-2",
        "two-runs/pull-1/by-2",
    ],
    "A reply is taken only from the node that the instruction was sent to; Flower believes the"
    " sender that the message names.": [
        "replies/stranger/push",
        "replies/stranger/seen",
    ],
    # --- nodes ------------------------------------------------------------------------------------
    "activate-node of a node that is online is accepted: a killed SuperNode comes back at once.": [
        "node-life/b/activate-online",
        "node-life/b/activate-revived",
    ],
    "A node's key is of a NIST curve, registered by the operator or not, and its PEM has nothing"
    " before or after it.": [
        "node-registration/curve-k256",
        "node-registration/curve-b256",
        "node-registration/leading-text",
        "node-registration/list-nodes",
        "node-auth/form/trailing",
        "node-auth/list-nodes",
        "node-auth/list-nodes/online",
        "node-auth/list-nodes/after",
    ],
    "A timestamp has the form that Flower's programs write, and no other that Python reads too.": [
        "node-signatures/time/milliseconds",
        "node-signatures/time/basic",
        "superexec-secret/time/plus",
        "superexec-secret/time/zeros",
        "superexec-secret/time/underscore",
    ],
    "A SuperExec's signature covers the request's bytes as they were sent, whatever their order,"
    " and its nonce has at most 128 characters.": [
        "superexec-secret/swapped/as-sent",
        "superexec-secret/swapped/ordered",
        "superexec-secret/long-nonce",
    ],
    # --- hostile or broken input ------------------------------------------------------------------
    "A SuperNode is never answered 500, which would end it: input that cannot be right is refused"
    " with a code, 403/2007 or 400/1003, or, like other replies that do not fit, not taken.": [
        "node-unknown-run/push-*",
        "node-unknown-run/pull-object*",
        "node-unknown-run/confirm",
        "replies/no-type/push",
        "replies/odd-type/push",
        "replies/no-content/push",
        "replies/both/push",
    ],
    "An invalid instruction is answered 400/1003 with a sentence naming the field, not 500.": [
        "push-instructions/nothing",
        "push-instructions/no-tree",
        "push-instructions/no-message",
        "push-instructions/two-trees",
        "push-instructions/bad/created-zero",
        "push-instructions/bad/created-early",
        "push-instructions/bad/ttl-zero",
        "push-instructions/bad/ttl-negative",
        "push-instructions/bad/expired",
        "push-instructions/bad/src-*",
        "push-instructions/bad/dst-zero",
        "push-instructions/bad/no-*",
        "push-instructions/bad/type-word",
        "push-instructions/bad/type-bad-action",
        "push-instructions/bad/type-two-dots",
        "push-instructions/bad/reply-to",
        "push-instructions/bad/other-run",
        "push-instructions/bad/unknown-run",
        "push-instructions/bad/run-zero",
        "push-instructions/bad/content-and-error",
        "push-instructions/tree/odd-child",
        "push-instructions/tree/empty-child",
        "push-instructions/mixed/push",
    ],
    "A message's id is the root of its object tree, object ids are lower-case hex, a tree is at"
    " most 16 levels deep, and times are finite: anything else is answered 400/1003.": [
        "push-instructions/bad/created-nan",
        "push-instructions/bad/ttl-nan",
        "push-instructions/bad/ttl-infinite",
        "push-instructions/bad/odd-id",
        "push-instructions/bad/other-id",
        "push-instructions/tree/other-root",
        "push-instructions/tree/upper-case-child",
        "push-instructions/tree/deep",
        "replies/no-id/push",
        "replies/other-root/push",
    ],
    "A node pushes one message a call, as every SuperNode does; Flower takes the first of several"
    " and drops the rest without a word.": [
        "replies/pair/push",
    ],
    "Control answers what it cannot use with a code, not a bare 500: what is no FAB with 412/15, no"
    " app at all with 412/35, a federation that is not there with 412/12 or 412/26.": [
        "start-run/fab/none",
        "start-run/fab/garbage",
        "start-run/fab/one-byte",
        "start-run/fab/cut",
        "start-run/fab/no-pyproject",
        "start-run/fab/empty-zip",
        "start-run/fab/bad-crc",
        "shape-control/control.start-run/bare",
        "shape-control/control.show-federation/bare",
        "federations/other/show-federation",
        "federations/empty/show-federation",
    ],
    "A FAB that two programs could read differently, or that would leave its folder at a site, is"
    " refused before anything starts: bytes before or after the archive, a file named twice, a"
    " name with `..`, `.`, a drive, a backslash or a leading slash.": [
        "start-run/fab/junk-before",
        "start-run/fab/junk-after",
        "start-run/entry/parent",
        "start-run/entry/absolute",
        "start-run/entry/backslash",
        "start-run/entry/drive",
        "start-run/entry/dot",
        "start-run/entry/two-pyprojects",
    ],
    "The hashes of a FAB's `.info/CONTENT` are checked before its run is accepted, not only at the"
    " sites, where the run would fail.": [
        "start-run/entry/content-lies",
        "start-run/entry/directory",
    ],
    "Publisher and name of a FAB become part of a folder's name at every site: they are not empty"
    " and have no slash.": [
        "start-run/toml/name-bad",
        "start-run/toml/publisher-bad",
        "start-run/toml/publisher-empty",
    ],
    "The licence and version bounds that FAB format 1 asks for are left to `flwr build`.": [
        "start-run/toml/fab-format-1",
    ],
    "A run configuration is overridden with a bool, int, float or string; Flower takes bytes, and"
    " answers 500 to every list-runs that shows the run.": [
        "start-run/config/bytes",
        "start-run/config/bytes/list",
        "start-run/config/unset",
    ],
    "An unsigned number in a run's configuration is shown as it was sent.": [
        "start-run/config/uint64/list",
    ],
    # --- what is not served -----------------------------------------------------------------------
    "No version is rejected; older and newer programs may try.": [
        "versions/runtime/minor",
        "versions/runtime/older",
        "versions/runtime/major",
        "versions/runtime/other-package",
        "versions/runtime/garbage",
        "versions/runtime/only-*",
        "versions/runtime/two-of-three",
        "versions/runtime/empty",
        "versions/runtime/before-token",
        "versions/runtime/no-claim",
        "versions/still-there",
        "versions/control/source",
    ],
    "Apps come with the request; none are kept for later or fetched from a hub, and none are"
    " listed.": [
        "start-run/hash/only-with-app",
        "federations/default/list-apps",
        "federations/list-apps/limit-1",
        "federations/list-apps/limit-2",
    ],
    "Agents are not run, so their endpoint for models and their limits are not there.": [
        "start-run/agent-with-prompt",
        "agent-routes/get-compacted-contexts/limit-0",
        "shape-http/responses/*",
    ],
    "Run series hold the state that one run leaves to the next, but are not shown: only"
    " `flwr chat`, which is for agents, asks for them.": [
        "series/get",
        "series/get-after",
        "series/list",
        "series/describe/*",
        "series/events",
        "series/first.acquire",
        "federations/series/federation",
    ],
    "The context of a run begins with its own id and the state its series was left in; in Flower"
    " it has the id of the newest run of the series, and the configuration of another.": [
        "series/first.input",
        "series/second.input",
    ],
    "Automations, which start runs later, are refused; Flower takes one for a series that is not"
    " there.": [
        "automations/unknown-series",
        "automations/list",
    ],
    "Paths are taken letter by letter: no redirect leads from a trailing slash, no escape is"
    " resolved.": [
        "shape-http/*/slash",
        "shape-http/unknown/escaped/*",
    ],
    "Interactive documentation of the interface is not served.": [
        "shape-http/unknown/docs/*",
        "shape-http/unknown/openapi/*",
    ],
}
