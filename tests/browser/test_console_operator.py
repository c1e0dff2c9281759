"""An operator's tasks on the pages of work and of records: letters, questions, machines, money, the audit log."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from orchestrator.testing.protocol import TOOLS
from tasks.node import LeaveRequest
from tasks.outcome import ErrorInfo, Failure
from tests.browser.browser_rig import Desk
from tests.browser.staged_rig import COMMAND, SAID, Stage

PATHS = ("/dead-letters", "/agents", "/approvals", "/autoscaler", "/circuits", "/cost", "/objectives", "/audit")


def test_replaying_a_dead_letter(desk: Desk) -> None:
    """From the list to what happened and what to do, and on to the new call, on a real fleet."""
    call = desk.call("probe.fail", {"message": "the till is locked"}, wait_s=30, project="till")
    desk.go("/dead-letters")
    desk.page.get_by_label("Project").fill("till")
    desk.page.get_by_role("button", name="Filter").click()
    row = desk.page.locator(f"#letter-{call}")
    expect(row).to_contain_text("the till is locked")
    row.get_by_role("link", name="probe.fail").click()
    expect(desk.page.get_by_text("What to do")).to_be_visible()
    desk.page.get_by_role("link", name="Replay…").click()
    expect(desk.page.get_by_role("heading", name="Replay probe.fail?")).to_be_visible()
    desk.page.get_by_role("button", name="Replay").click()
    expect(desk.page.get_by_role("status").first).to_contain_text("is called again")
    desk.page.get_by_role("link", name=re.compile("the new call")).click()
    expect(desk.page.get_by_role("heading", level=1)).to_contain_text("probe.fail")
    (again,) = [one for one in desk.api("GET", "/v1/invocations?project=till")["items"] if one["replay_of"] == call]
    expect(desk.page).to_have_url(re.compile(again["id"]))


def test_finding_who_cancelled_a_call(desk: Desk) -> None:
    """Its id goes into the audit log's search; the answer has a name, a time and an address. The log is verified."""
    call = desk.call("probe.sleep", {"seconds": 600}, project="till")
    desk.api("POST", f"/v1/invocations/{call}/cancel")
    desk.go("/audit")
    desk.page.get_by_label("Did what").fill("cancel")
    desk.page.get_by_label("To what").fill(call)
    desk.page.get_by_role("button", name="Search").click()
    expect(desk.page.locator("tbody tr")).to_have_count(1)
    expect(desk.page.locator("tbody tr")).to_contain_text("operator")
    expect(desk.page.locator("tbody tr")).to_contain_text("127.0.0.1")
    desk.page.get_by_role("link", name="Verify the log").click()
    desk.page.get_by_role("button", name="Look").click()
    expect(desk.page.get_by_role("heading", level=1)).to_have_text("The audit log is sound")


def test_approving_what_an_agent_asks_for(staged_desk: Desk, stage: Stage) -> None:
    """The question appears by itself, is read whole, and is answered with a reason; the run's page follows along."""
    run = stage.runs[0].invocation
    staged_desk.go("/approvals")
    expect(staged_desk.page.locator(".empty")).to_contain_text("Nobody waits for an answer")
    question = stage.do(stage.asks())
    row = staged_desk.page.locator(f"#approval-{question.id}")
    expect(row).to_contain_text("git push origin")
    staged_desk.shot("approvals")
    row.get_by_role("link", name="Answer").click()
    expect(staged_desk.page.locator(".arguments pre").first).to_have_text(COMMAND)
    staged_desk.shot("approval")
    staged_desk.page.get_by_label("Reason; the agent is told").fill("the branch is yours")
    staged_desk.page.get_by_role("button", name="Allow this once").click()
    expect(staged_desk.page.get_by_role("status").first).to_contain_text("Bash is allowed")
    said = staged_desk.api("GET", f"/v1/approvals/{question.id}")
    assert (said["state"], said["reason"], said["answered_by"]) == ("allowed", "the branch is yours", "operator")
    staged_desk.go(f"/agents/{run}")
    expect(staged_desk.page.locator("#lines")).to_contain_text("runs on desk-1")


def test_what_a_run_says_appears_while_one_looks(staged_desk: Desk, stage: Stage) -> None:
    """Line by line and as text; the rest of the page is fetched again meanwhile, and the lines stay."""
    staged_desk.go(f"/agents/{stage.runs[0].invocation}")
    lines = staged_desk.page.locator("#lines")
    expect(lines).to_contain_text("given to desk-1")
    hostile = "<img src=x onerror=document.title='owned'>"
    stage.do(stage.says(*SAID, hostile))
    expect(lines).to_contain_text("a cent off for 3 of 10 receipts")
    expect(lines).to_contain_text(hostile)
    assert lines.locator("img").count() == 0
    with staged_desk.page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        stage.do(stage.says("the tests pass", first=len(SAID) + 2))
    expect(lines).to_contain_text("the tests pass")
    expect(lines).to_contain_text(SAID[0])
    assert staged_desk.page.title() != "owned"
    staged_desk.shot("agent")


def test_seeing_why_the_autoscaler_did_something(staged_desk: Desk) -> None:
    """A burst in the log of decisions: from how many to how many, the rule that wanted it, and what it saw."""
    staged_desk.go("/autoscaler")
    staged_desk.shot("autoscaler")
    staged_desk.page.locator("#pool-builders").get_by_role("link", name="builders").click()
    more = staged_desk.page.locator(".decision").filter(has_text="more").first
    expect(more).to_contain_text("slots for p95 wait under 5 s")
    more.get_by_text("What it saw").click()
    expect(more.get_by_role("table")).to_contain_text("tools")
    more.scroll_into_view_if_needed()


def test_holding_a_pool_at_a_size_until_it_expires(staged_desk: Desk) -> None:
    """Said with an end, seen on every page of the pool, and lifted; nonsense is refused with a sentence."""
    staged_desk.go("/autoscaler/builders")
    staged_desk.page.get_by_role("link", name="Hold…").click()
    staged_desk.shot("hold")
    staged_desk.page.get_by_label("Machines").fill("4")
    staged_desk.page.get_by_label("For how long").fill("2h")
    staged_desk.page.get_by_role("button", name="Hold").click()
    expect(staged_desk.page.get_by_role("status").first).to_contain_text("held at 4 machines until")
    staged_desk.go("/autoscaler")
    expect(staged_desk.page.locator("#pool-builders")).to_contain_text("holds it at 4 machines")
    staged_desk.page.get_by_role("link", name="Lift the hold…").click()
    staged_desk.page.get_by_role("button", name="Lift the hold").click()
    expect(staged_desk.page.get_by_role("status").first).to_contain_text("The policy sizes pool builders again")
    (pool,) = staged_desk.api("GET", "/v1/scale")["pools"]
    assert pool["override"] is None
    staged_desk.expects("422")
    staged_desk.go("/autoscaler/builders/hold")
    staged_desk.page.get_by_label("Machines").fill("many")
    staged_desk.page.get_by_role("button", name="Hold").click()
    expect(staged_desk.page.get_by_role("alert")).to_contain_text("no number of machines")


def test_draining_a_node(staged_desk: Desk, stage: Stage) -> None:
    """What follows is said first; it shows that it drains, and is off the map once it has left."""
    node = stage.do(stage.it.story.join("desk-3", tools=TOOLS, slots=2, pool="builders"))
    staged_desk.go("/fleet")
    staged_desk.page.locator("#drain-desk-3").click()
    expect(staged_desk.page.locator(".confirm")).to_contain_text("hands back what it has not started")
    staged_desk.page.get_by_role("button", name="Drain").click()
    expect(staged_desk.page.get_by_role("status").first).to_contain_text("desk-3 is draining")
    row = staged_desk.page.locator("#node-desk-3")
    expect(row).to_contain_text("draining")
    stage.do(stage.it.story.core.desk.leave("desk-3", LeaveRequest(incarnation=node.incarnation)))
    expect(row).to_have_count(0)


def test_discarding_the_dead_letters_of_one_reason(staged_desk: Desk, stage: Stage) -> None:
    """Chosen by a filter, counted before the question is answered; the others stay."""
    stage.do(stage.bad("files.read", "museum"))
    staged_desk.go("/dead-letters")
    staged_desk.page.get_by_label("Project").fill("museum")
    staged_desk.page.get_by_role("button", name="Filter").click()
    expect(staged_desk.page.locator("tbody tr")).to_have_count(1)
    staged_desk.page.get_by_role("link", name="Discard 1 letter…").click()
    expect(staged_desk.page.get_by_role("heading", name="Discard 1 dead letter?")).to_be_visible()
    expect(staged_desk.page.locator(".confirm")).to_contain_text("With project museum")
    staged_desk.shot("discard")
    staged_desk.page.get_by_role("button", name="Discard 1").click()
    expect(staged_desk.page.get_by_role("status").first).to_contain_text("1 dead letter discarded")
    left = {one["project"] for one in staged_desk.api("GET", "/v1/dead-letters")["items"]}
    assert "museum" not in left
    assert "shop" in left


def test_seeing_which_server_is_passed_by(staged_desk: Desk) -> None:
    """From the first page to the circuit: since when, after which failure, and when it is tried again."""
    staged_desk.go("")
    staged_desk.page.locator(".matters").get_by_role("link", name=re.compile("server git on desk-2")).click()
    expect(staged_desk.page.locator("#node-desk-2")).to_contain_text("git")
    staged_desk.page.get_by_role("navigation", name="Pages").get_by_role("link", name="Circuit breakers").click()
    row = staged_desk.page.locator("#circuit-desk-2-git-results")
    expect(row).to_contain_text("open")
    expect(row).to_contain_text("exit status 139")
    staged_desk.shot("circuits")


def test_seeing_what_a_project_costs(staged_desk: Desk) -> None:
    """What it spent by day, and what was without a price."""
    staged_desk.go("/cost")
    expect(staged_desk.page.locator(".note")).to_contain_text("37 requests are not in these sums")
    staged_desk.shot("cost")
    staged_desk.page.get_by_role("row").filter(has_text="shop").get_by_role("link").click()
    expect(staged_desk.page.locator(".lead")).to_have_text("Of project shop.")
    expect(staged_desk.page.locator("tbody tr")).to_have_count(1)


def test_seeing_which_objective_burns(staged_desk: Desk, stage: Stage) -> None:
    """Which promise is missed, how much of its error budget is gone, and how fast it goes now."""
    ours = ErrorInfo("node_error", "the node's disk is full", Failure.PERMANENT)
    call = stage.do(stage.bad("files.read", "museum", ours))
    staged_desk.api("POST", "/v1/dead-letters:discard", json={"ids": [call]})
    staged_desk.go("/objectives")
    expect(staged_desk.page.locator(".lead")).to_contain_text("1 of 4 missed")
    missed = staged_desk.page.locator("article").filter(has_text="missed")
    expect(missed).to_have_attribute("id", "objective-availability")
    expect(missed).to_contain_text("1 bad of")
    expect(missed).to_contain_text("overspent")
    expect(missed).to_contain_text("burns at")
    staged_desk.shot("objectives")


def test_what_waits_for_somebody_is_seen_at_a_glance(staged_desk: Desk, stage: Stage) -> None:
    """How many letters, of what; which runs go on, what they cost, and whose credential is spent."""
    staged_desk.go("/dead-letters")
    expect(staged_desk.page.locator(".lead")).to_contain_text("13 calls ended badly")
    expect(staged_desk.page.get_by_label("Reason")).to_contain_text("tool_error (7)")
    staged_desk.shot("dead-letters")
    staged_desk.go("/agents")
    expect(staged_desk.page.locator(f"#run-{stage.runs[0].invocation}")).to_contain_text("$0.2184")
    expect(staged_desk.page.get_by_role("table").first).to_contain_text("credential anthropic is spent until")
    staged_desk.shot("agents")
    staged_desk.go("/autoscaler/builders")
    staged_desk.shot("pool", whole=False)
    staged_desk.go("/audit")
    staged_desk.shot("audit", whole=False)


def test_a_filter_that_is_being_written_is_left_alone(staged_desk: Desk, stage: Stage) -> None:
    """The page is fetched again under the reader's hands; what was written and chosen stays."""
    staged_desk.go("/dead-letters")
    staged_desk.page.get_by_label("Tool").fill("files.")
    staged_desk.page.get_by_label("Reason").select_option("permanent")
    staged_desk.page.get_by_label("Project").focus()
    with staged_desk.page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        stage.do(stage.says("something happened"))
    with staged_desk.page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        stage.do(stage.says("something else"))
    expect(staged_desk.page.get_by_label("Tool")).to_have_value("files.")
    expect(staged_desk.page.get_by_label("Reason")).to_have_value("permanent")


def test_pages_with_something_on_them_fit_a_phone(staged_phone: Desk, stage: Stage) -> None:
    """360 pixels, with long words; also pages of one letter, one run, one pool."""
    letter = staged_phone.api("GET", "/v1/dead-letters")["items"][0]["id"]
    run = stage.runs[0].invocation
    more = (
        f"/dead-letters/{letter}",
        "/dead-letters/replay",
        f"/agents/{run}",
        "/autoscaler/builders",
        "/audit/verify",
    )
    for path in (*PATHS, *more):
        staged_phone.go(path)
        expect(staged_phone.page.get_by_role("heading", level=1)).to_be_visible()
        assert staged_phone.overflow_px() <= 0, path
    staged_phone.go("/dead-letters")
    staged_phone.shot("phone-dead-letters", whole=False)


@pytest.mark.parametrize("path", PATHS)
def test_pages_are_there_in_the_dark(staged_dark_desk: Desk, path: str) -> None:
    """Nothing of a page is refused by the policy for browsers, and it has one heading."""
    staged_dark_desk.go(path)
    expect(staged_dark_desk.page.get_by_role("heading", level=1)).to_have_count(1)
    if path in {"/dead-letters", "/audit"}:
        staged_dark_desk.shot(f"dark{path.replace('/', '-')}", whole=False)
