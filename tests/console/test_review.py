"""Judging: the walk, labels, undo, two reviewers."""

from pathlib import Path

from tests.console.browsing import Browser, said
from tests.console.stock import Stock, stocked


def here(answer_location: str) -> str:
    """The suspect that an address leads to."""
    assert answer_location.startswith("/suspects/"), answer_location
    return answer_location.removeprefix("/suspects/")


def judge(browser: Browser, suspect: str, label: str) -> str:
    """Label one on its page; where that leads."""
    answer = browser.post("/label", {"id": suspect, "at": suspect, "label": label})
    assert answer.status == 303, answer.text
    return answer.location


def test_a_review_leads_from_one_to_the_next(fresh: Stock) -> None:
    """Every open suspect comes once, and then there is nothing left."""
    ada = Browser(fresh.port.url).log_in()
    seen, location = [], ada.get("/review").location
    for _ in range(40):
        if not location.startswith("/suspects/"):
            location = ada.get(location).location  # the next few
            if not location:
                break
        seen.append(here(location))
        location = judge(ada, seen[-1], "benign")
    assert sorted(seen) == sorted(fresh.ids)
    done = ada.get("/review")
    assert done.status == 200
    assert "Nothing left to review" in done.text
    assert "12 labels" in done.text


def test_skipped_ones_come_back_on_demand(fresh: Stock) -> None:
    """Going on without a label skips; at the end one may look at them again."""
    ada = Browser(fresh.port.url).log_in()
    first = here(ada.get("/review").location)
    second = here(ada.get("/review").location)
    assert first != second
    done = ada.get("/review")
    assert "Only skipped ones are left" in done.text
    assert here(ada.get("/review?again=1").location) == first


def test_two_reviewers_are_given_different_suspects(fresh: Stock) -> None:
    """What one holds the other does not get."""
    ada, ben = (Browser(fresh.port.url).log_in(name) for name in ("ada", "ben"))
    first = here(ada.get("/review").location)
    assert here(ben.get("/review").location) != first


def test_undo_takes_the_last_label_back(fresh: Stock) -> None:
    """And shows the suspect again; once more there is nothing to undo."""
    ada = Browser(fresh.port.url).log_in()
    one = here(ada.get("/review").location)
    following = judge(ada, one, "adversarial")
    assert said(ada.get(following)) == "Labelled 1 suspect as adversarial."
    assert fresh.store.row(one).label == "adversarial"
    answer = ada.post("/undo", {"at": here(following)})
    assert here(answer.location) == one
    assert said(ada.get(answer.location)) == "Label taken back."
    assert fresh.store.row(one).label is None
    answer = ada.post("/undo", {"at": one})
    assert said(ada.get(answer.location)) == "There is nothing to undo."


def test_many_are_labelled_and_undone_in_one_step(fresh: Stock) -> None:
    """A bulk label of near-duplicates is one step back."""
    ada = Browser(fresh.port.url).log_in()
    answer = ada.post("/label", {"id": fresh.ids[:5], "label": "benign", "stay": "1"})
    assert answer.location.startswith("/suspects?")
    assert said(ada.get(answer.location)) == "Labelled 5 suspects as benign."
    assert [fresh.store.row(one).label for one in fresh.ids[:6]] == ["benign"] * 5 + [None]
    answer = ada.post("/undo", {})
    assert said(ada.get(answer.location)) == "5 labels taken back."
    assert fresh.store.counts().by_state.get("agreed", 0) == 0


def test_similar_ones_are_offered(tmp_path: Path) -> None:
    """A darker copy of a picture is found beside it, to be labelled with it."""
    with stocked(tmp_path, count=30) as stock:
        ada = Browser(stock.port.url).log_in()
        text = ada.get(f"/suspects/{stock.ids[0]}").text
        alike = text.partition('id="alike"')[2].partition('id="facts"')[0]
        assert any(one in alike for one in stock.ids[24:])
        assert stock.ids[0] not in alike.partition("<ul")[2]


def test_a_queue_is_walked_in_its_own_order(fresh: Stock) -> None:
    """Previous and next are the neighbours on the page one came from; a label goes on there."""
    ada = Browser(fresh.port.url).log_in()
    ada.get("/suspects?order=oldest")
    text = ada.get(f"/suspects/{fresh.ids[1]}").text
    assert f'rel="prev" data-key="k" href="/suspects/{fresh.ids[0]}"' in text
    assert f'rel="next" data-key="j" href="/suspects/{fresh.ids[2]}"' in text
    assert "2 of 12" in text
    assert here(judge(ada, fresh.ids[1], "unsure")) == fresh.ids[2]
    assert judge(ada, fresh.ids[11], "unsure") == "/suspects?order=oldest"


def test_nonsense_is_not_labelled(fresh: Stock) -> None:
    """Unknown labels, unknown ids, none at all: refused, and nothing is changed."""
    ada = Browser(fresh.port.url).log_in()
    one = fresh.ids[0]
    assert ada.post("/label", {"id": one, "label": "great"}).status == 400
    assert ada.post("/label", {"label": "benign"}).status == 400
    assert ada.post("/label", {"id": [one, "a" * 26], "label": "benign"}).status == 404
    assert ada.post("/label", {"id": "../x", "label": "benign"}).status == 400
    assert ada.post("/label", {"id": one, "label": "benign", "at": "//evil.example/"}).location == (
        "/suspects?"
    )
    assert fresh.store.counts().by_label.get("benign", 0) == 1


def test_two_judge_apart_and_then_agree(tmp_path: Path) -> None:
    """Of two reviewers the second does not see the first one's label before giving one."""
    with stocked(tmp_path, count=2, reviewers=2) as stock:
        one = stock.ids[0]
        ada, ben = (Browser(stock.port.url).log_in(name) for name in ("ada", "ben"))
        page = f"/suspects/{one}"
        judge(ada, one, "adversarial")
        text = ada.get(page).text
        assert "1 of 2 reviewers" in text
        assert "You said" in text
        text = ben.get(page).text
        assert "1 of 2 reviewers; what the other said is shown after you did" in text
        assert "ada said" not in text
        assert ">adversarial</span>" not in ben.get("/suspects").text
        assert "user:ada" not in ben.get("/export.jsonl").text
        judge(ben, one, "adversarial")
        text = ben.get(page).text
        assert "2 of 2 reviewers, who agree" in text
        assert "ada said" in text
        judge(ben, one, "benign")
        text = ada.get(page).text
        assert "2 of 2 reviewers, who disagree" in text
        assert "disputed" in text
