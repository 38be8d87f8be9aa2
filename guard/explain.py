"""What `guard check` says about a config: who may do what, the chain, its price, its failures."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guard.config import Config, Gateway, Model
from guard.config.access import is_loopback
from guard.config.audit import AuditSettings
from guard.config.limits import Rule
from guard.config.release import KeyRelease
from guard.gateway import permissions
from guard.gateway.audit.keys import load_keys
from guard.gateway.keeping import opener
from guard.gateway.limits import Allowance, allowance_of
from guard.gateway.loading import Packs
from guard.gateway.server import authenticator_of
from guard.gateway.standing import Entry
from guard.gateway.tls import expired, watched_certificates
from guard.pipeline import Pipeline
from guard.signing.keys import home
from guard.verdict import Policy


def explain(config: Config, model: Model, pipeline: Pipeline) -> Iterator[str]:
    """Lines about one model."""
    policy, pack = config.policy(model), pipeline.pack
    yield f"model {model.name}: pack {pack.name} ({pack.digest[:19]}, {_trust(pipeline)})"
    yield f"  task: {len(pack.classes)} classes, images {'x'.join(map(str, pack.input_shape))}"
    yield f"  answers: {_who(model)}"
    yield f"  chain: {' > '.join(_chain(pack.manifest, upstream=bool(model.upstream)))}"
    yield f"  price: {price(pack.manifest)}, on {pipeline.provider}"
    yield f"  policy: {_policy(policy)}"
    yield from _budget(model, policy, pipeline)
    yield f"  on failure: {_posture(policy)}"
    yield f"  exposes: {policy.expose}"
    yield f"  tells: {_tells(model)}"
    yield f"  queries: {_queries(model, policy)}"
    yield f"  drift: {_drift(model)}"


def _queries(model: Model, policy: Policy) -> str:
    queries = model.queries
    if not queries.watch:
        return "not compared with each other (queries.watch)"
    acts = {
        "alert": "an alert",
        "cached": "an alert, and from then on the answer to the first of them",
        "block": "an alert, and from then on refused",
    }
    action = acts[queries.on_attack if policy.mode == "enforce" else "alert"]
    return (
        f"{queries.alarm} that nearly repeat each other within {queries.seconds:g} s: {action}; "
        f"{queries.remembered} remembered"
    )


def _tells(model: Model) -> str:
    harden = model.output.harden
    parts = ["the label alone"] if harden.label_only else []
    parts += [f"the first {harden.top_k} classes"] if harden.top_k else []
    parts += [f"{harden.decimals} decimals"] if harden.decimals is not None else []
    parts += [f"no probability above {harden.most:g}"] if harden.most < 1 else []
    if not parts:
        return "answers in full (output.harden)"
    exempt = f"; in full to {', '.join(harden.exempt)}" if harden.exempt else ""
    return ", ".join(parts) + exempt


def _drift(model: Model) -> str:
    drift = model.drift
    if not drift.watch:
        return "traffic is not compared with the calibration (drift.watch)"
    looked = f"one picture in {drift.every}" if drift.every > 1 else "every picture"
    return (
        f"{looked} compared with the calibration and the first {drift.reference}; "
        f"an alarm without cause has a chance of {drift.risk:g}, ever"
    )


def explain_access(gateway: Gateway) -> Iterator[str]:
    """Lines about the ports and who may do what; ConfigError where a file cannot serve."""
    certificates = watched_certificates(gateway.tls)
    transport = "plain text"
    if certificates is not None:
        ends = certificates.get().expires
        state = "EXPIRED" if expired(certificates.get()) else "valid until"
        transport = f"TLS, certificate {state} {ends:%Y-%m-%d}"
        if gateway.tls.client_ca:
            transport += ", client certificates required"
    for name, address in {"gRPC": gateway.listen, "metrics": gateway.metrics}.items():
        if address:
            yield f"listens: {name} on {address} ({transport})"
    if authenticator_of(gateway) is not None:
        yield from _who_may(gateway)
        return
    reach = "on this machine"
    if not all(is_loopback(at) for at in (gateway.listen, gateway.metrics) if at):
        reach = "who reaches these ports (gateway.insecure)"
    yield f"who may do what: everybody {reach} may do everything"


def explain_release(release: KeyRelease) -> Iterator[str]:
    """A line about keys that a command hands out; `guard check` runs it, too."""
    if release.keys:
        names = " and ".join(release.keys)
        yield f"keys: {names} from {release.command[0]}, within {release.timeout:g} s"


def explain_audit(audit: AuditSettings) -> Iterator[str]:
    """Lines about the audit log; ConfigError where its keys cannot serve."""
    if not audit.folder:
        yield "audit: no log is kept (gateway.audit.folder)"
        return
    keys = "made at the first start"
    if not audit.key_file:
        keys = "handed out by gateway.key_release"
    elif Path(audit.key_file).exists():
        keys = f"key {load_keys(Path(audit.key_file)).current.id} in use"
    held = f"keys in {audit.key_file} ({keys})" if audit.key_file else f"keys {keys}"
    yield f"audit: kept in {audit.folder}, {held}"
    where = f"to {audit.export}" if audit.export else "nowhere: a cut-off end would go unseen"
    every = f"every {audit.checkpoint_every} records or {audit.checkpoint_seconds:g} s"
    yield f"  checkpoints: {every}, exported {where}"
    refused = "are refused" if audit.on_error == "block" else "are answered all the same"
    yield f"  on failure: administrative calls that cannot be recorded {refused}"


def explain_suspects(config: Config) -> Iterator[str]:
    """Lines about what is kept of suspicious images; StoreError where its keys do not open it."""
    suspects = config.suspects
    if not suspects.enabled:
        yield "suspects: none are kept (suspects.folder)"
        return
    index = suspects.index or f"{suspects.folder} (SQLite)"
    where = f"index {index}, images {suspects.objects or suspects.folder}"
    yield f"suspects: {where}, {_suspect_keys(config)}"
    yield f"  there now: {_there(config)}"
    share = f"{100 * suspects.sample_rate:g}% of all, drawn before the verdict"
    yield f"  kept: what is flagged or blocked, and {share}"
    size = f"{suspects.quota_bytes / (1 << 30):.3g} GiB"
    yield f"  for {suspects.keep_days:g} days and {size} at most, then the oldest are erased"
    after = "within a minute" if suspects.rotate_after_erase else "when the keys are rotated"
    yield f"  erased: unreadable from old backups {after}"
    yield f"  settled: when {suspects.reviewers} reviewer(s) say so"


def explain_console(config: Config) -> Iterator[str]:
    """Lines about the review console."""
    console = config.console
    if not console.listen:
        yield "console: not served (console.listen)"
        return
    kind = "https" if config.gateway.tls.cert or console.origin[:6] == "https:" else "http"
    yield f"console: {kind}, at {console.listen}"
    ways = [f"names and passwords in {console.users_file}"] if console.users_file else []
    ways += ["the gateway's tokens"] if config.gateway.identity.tokens.keys else []
    yield f"  log-in: {' or '.join(ways)}, for {console.session_hours:g} hours"


def explain_packs(config: Config) -> Iterator[str]:
    """Lines about who vouches for packs, and what was promoted; PackError where that is no more."""
    gateway = config.gateway
    vouch = ", ".join(gateway.trust) or f"the keys in {home() / 'trust'}"
    yield f"packs: trusted where this version pins them, or signed by {vouch}"
    if not gateway.packs:
        yield "  promoted while serving: none may be (gateway.packs)"
        return
    yield f"  promoted while serving: those in {gateway.packs}; what is, in {gateway.state}"
    packs = Packs(config)
    for model in config.models:
        standing = packs.known(model)
        if standing is None:
            yield f"  {model.name}: never was"
            continue
        yield f"  {model.name}: {_standing(standing.current)}"
        if standing.before:
            yield f"    before: {_standing(standing.before[-1])}"
        if standing.shadow:
            yield f"    in shadow: {standing.shadow.pack}, from {standing.shadow.submitted_by}"


def _standing(entry: Entry) -> str:
    if not entry.pack:
        return f"the settings' own pack ({entry.digest[:19]})"
    when = f"{datetime.fromtimestamp(entry.at, UTC):%Y-%m-%d %H:%M} UTC"
    by = f"submitted by {entry.submitted_by}, approved by {entry.approved_by} on {when}"
    return f"{entry.pack}, serial {entry.serial} ({entry.digest[:19]}), {by}"


def _suspect_keys(config: Config) -> str:
    suspects = config.suspects
    if "suspects" in config.gateway.key_release.keys:
        return "keys handed out by gateway.key_release"
    if suspects.key_variable:
        return f"keys in the environment ({suspects.key_variable})"
    made = "in use" if Path(suspects.key_file).exists() else "made at the first start"
    return f"keys in {suspects.key_file} ({made})"


def _there(config: Config) -> str:
    """What the store holds; it is not made by asking."""
    folder = Path(config.suspects.folder)
    if not config.suspects.index and not (folder.is_dir() and any(folder.iterdir())):
        return "nothing yet"
    store = opener(config)()
    try:
        counts = store.counts()
    finally:
        store.close()
    return f"{counts.total} suspects, {counts.bytes / 1e6:.1f} MB"


def explain_limits(gateway: Gateway) -> Iterator[str]:
    """Lines about how much a caller may ask, and how much the gateway takes on."""
    limits = gateway.limits
    yield f"limits: {_allowance(allowance_of(limits, Rule()))} for each caller"
    if limits.redis:
        part = f"1/{limits.replicas} of each limit" if limits.replicas > 1 else "all of each limit"
        yield f"  counted in {limits.redis}; while it fails, {part} here"
    for rule in limits.rules:
        who = " and ".join(filter(None, (rule.match, rule.role and f"role {rule.role}")))
        yield f"  {who}: {_allowance(allowance_of(limits, rule))}"


def _allowance(allowed: Allowance) -> str:
    rate, burst, daily = allowed
    rated = f"{rate:g} images a second, {burst} at once" if rate else "no rate limit"
    return f"{rated}, " + (f"{daily} images in 24 hours" if daily else "no daily budget")


def _who_may(gateway: Gateway) -> Iterator[str]:
    yield "who may do what:"
    for grant in gateway.identity.grants:
        calls = ", ".join(permissions.calls_of(grant.roles))
        yield f"  {grant.match}: {', '.join(grant.roles)} ({calls})"
    tokens = gateway.identity.tokens
    if tokens.keys and tokens.roles_claim:
        yield f"  tokens of {tokens.issuer}: also the roles that their `{tokens.roles_claim}` names"
    yield "  everybody else: nothing"


def price(manifest: Any) -> str:
    """Forward passes and floating-point operations for one image."""
    evidence = manifest["evidence"]
    passes = evidence.get("passes", "unknown number of")
    flops = evidence.get("flops")
    return (
        f"{passes} forward passes" + (f", {flops / 1e6:.0f} MFLOP" if flops else "") + " an image"
    )


def _trust(pipeline: Pipeline) -> str:
    pack = pipeline.pack
    return pack.signer if pack.shipped else f"signed by {pack.signer}"


def _who(model: Model) -> str:
    if model.answer == "ensemble":
        return "the pack's robust ensemble"
    return f"the upstream {model.upstream} ({model.upstream_model or model.name})"


def _chain(manifest: Any, *, upstream: bool) -> Iterator[str]:
    for defense in manifest["evidence"].get("defenses", []):
        views = [squeezer["name"] for squeezer in defense.get("squeezers", [])]
        detail = f" ({', '.join(views)})" if views else ""
        asked = f" of the {defense['ask']}" if views or defense["name"] == "noise" else ""
        yield f"{defense['name']}{detail}{asked}"
    if upstream:
        yield "upstream disagreement"
    yield "detector"


def _policy(policy: Policy) -> str:
    act = f"enforce, {policy.on_flag}" if policy.mode == "enforce" else "monitor, records only"
    return f"{act}; false-alarm budget {policy.max_false_positive_rate:g}"


def _budget(model: Model, policy: Policy, pipeline: Pipeline) -> Iterator[str]:
    key = "upstream" if model.upstream else "alone"
    entry = pipeline.calibrations[key]
    low, high = entry.realised_rate(policy.max_false_positive_rate)
    yield (
        f"  calibration: {len(entry)} images ({entry.about.get('upstream', 'the pack alone')}); "
        f"realised false-alarm rate {100 * low:.2f} to {100 * high:.2f}% (95%)"
    )
    if model.upstream and not model.calibration:
        yield "  note: not calibrated for this upstream: `guard calibrate` does that"


def _posture(policy: Policy) -> str:
    if policy.on_error == "allow":
        return "a fault of the defence lets images pass as ABSTAIN; non-finite numbers never pass"
    return "closed: an image that cannot be examined is not answered"
