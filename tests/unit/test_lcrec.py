"""LC-Rec: what is asked, what is learned of it, and that answers stay inside the catalogue."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from tesserec.data.dataset import Dataset
from tesserec.data.splits import leave_one_out
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.functional.exact import exact_scores
from tesserec.language.codes import CodeTokens, initialise_rows, text_means, word_of
from tesserec.language.decoding import PromptDecoder
from tesserec.language.interests import Interests
from tesserec.language.model import AdapterConfig, LanguageModel, begin_language_model
from tesserec.language.new import NewModelConfig, new_model
from tesserec.language.prompts import TASKS, Facts, PromptBuilder, corpus
from tesserec.language.tasks import TaskRows
from tesserec.language.texts import ItemTexts, item_texts
from tesserec.recommenders import load_recommender
from tesserec.recommenders.lcrec import LCRec, LCRecConfig, LCRecObjective
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig
from toy_ring import ITEM_IDS, N_ITEMS, ring_ids, walks

NEW = NewModelConfig(width=32, ff_width=64, n_layers=2, n_heads=2, n_kv_heads=1, words=900, max_tokens=256)
SMALL = LCRecConfig(
    new=NEW, fusion_rows=40, max_items=6, max_tokens=128, text_tokens=16, beam_width=30, users_per_batch=16
)
TRAINING = TrainingConfig(
    epochs=30, validate_every=15, batch_size=32, learning_rate=5e-3, schedule="cosine", warmup_steps=20, device="cpu",
    precision="fp32",
)  # fmt: skip
COLOURS = ("amber", "beige", "coral", "denim", "ebony", "fawn")
SHAPES = ("bowl", "cup", "dish", "flask", "jar")


@pytest.fixture(scope="module")
def dataset():
    items = pl.DataFrame(
        {
            "item_id": ITEM_IDS,
            "title": [f"{COLOURS[row % 6]} {SHAPES[row // 6]}" for row in range(N_ITEMS)],
            "material": [("glass", "wood", "steel")[row % 3] for row in range(N_ITEMS)],
            "made_in": [("Porto", "Ghent")[row % 2] for row in range(N_ITEMS)],
        }
    )
    return Dataset(items, *walks(50))


@pytest.fixture(scope="module")
def split(dataset):
    return leave_one_out(dataset)


@pytest.fixture(scope="module")
def semantic_ids():
    return ring_ids()


@pytest.fixture(scope="module")
def texts(dataset):
    return item_texts(dataset.items)


@pytest.fixture(scope="module")
def folder(texts, tmp_path_factory):
    """A small untrained model, as `tesserec lm new` makes it."""
    folder = tmp_path_factory.mktemp("lm") / "model"
    new_model(corpus(texts), folder, NEW)
    return folder


@pytest.fixture(scope="module")
def untied(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm") / "untied"
    config = dataclasses.replace(NEW, tied=False, architecture="llama")
    new_model(corpus(texts), folder, config)
    return folder


@pytest.fixture(scope="module")
def language_model(folder, semantic_ids) -> LanguageModel:
    """Random weights, large enough that probabilities differ."""
    model = begin_language_model(str(folder), semantic_ids.codebook_sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return model


@pytest.fixture(scope="module")
def builder(language_model, semantic_ids, texts):
    return PromptBuilder(language_model.tokenizer, language_model.codes, semantic_ids.codes, texts, max_tokens=128)


@pytest.fixture(scope="module")
def interests(texts):
    return Interests.from_texts(texts)


@pytest.fixture(scope="module")
def rows(split, interests):
    return TaskRows.of(split, tuple(TASKS), interests, fusion_rows=40, seed=0)


@pytest.fixture(scope="module")
def trained(split, semantic_ids):
    config = dataclasses.replace(SMALL, tasks=("seqrec", "preference"), max_items=2)
    return LCRec(semantic_ids, config, dataclasses.replace(TRAINING, epochs=60, validate_every=30)).fit(split)


def every_sample(rows, builder, epoch=0):
    """(task, request, answer) of every row that can be asked."""
    tasks = np.repeat(list(rows.counts), list(rows.counts.values()))
    samples = [(task, rows.sample(row, epoch, builder)) for row, task in enumerate(tasks)]
    return [(task, *sample) for task, sample in samples if sample is not None]


# -- words -----------------------------------------------------------------------------------------------------------


def test_every_code_of_every_level_is_one_word(language_model):
    tokenizer, codes = language_model.tokenizer, language_model.codes
    assert [len(level) for level in codes.tokens] == [5, 6]
    assert len(np.unique(codes.all)) == 11
    assert tokenizer("<a_4><b_0>,<a_1>", add_special_tokens=False).input_ids == [
        codes.tokens[0][4], codes.tokens[1][0], *tokenizer(",").input_ids, codes.tokens[0][1],
    ]  # fmt: skip
    assert tokenizer.decode(codes.of(np.array([3, 2])), skip_special_tokens=True).replace(" ", "") == "<a_3><b_2>"


def test_a_twelve_is_not_a_one_followed_by_a_two(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    codes = CodeTokens.add(tokenizer, (20, 20))
    assert tokenizer("<a_12>", add_special_tokens=False).input_ids == [codes.tokens[0][12]]


def test_levels_beyond_the_alphabet_have_words_of_their_own():
    assert len({word_of(level, code) for level in range(40) for code in range(3)}) == 120


def test_a_second_time_no_words_are_added(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    CodeTokens.add(tokenizer, (5, 6))
    n_words = len(tokenizer)
    CodeTokens.add(tokenizer, (5, 6))
    assert len(tokenizer) == n_words


def test_new_rows_are_as_spread_as_old_ones():
    table = torch.nn.Parameter(torch.randn(600, 16) * 0.02 + 0.5)
    initialise_rows(table, 500, np.arange(500, 600), None, seed=0)
    new, old = table[500:].detach(), table[:500].detach()
    assert float(new.std(dim=0).mean()) == pytest.approx(float(old.std(dim=0).mean()), rel=0.1)
    assert float(new.mean()) == pytest.approx(0.5, abs=0.01)


def test_a_model_that_knows_the_codes_is_taken_up_with_their_rows(trained, semantic_ids, tmp_path):
    trained.save(tmp_path / "saved")
    again = begin_language_model(str(tmp_path / "saved" / "model"), semantic_ids.codebook_sizes)
    assert torch.equal(again.head[0], trained.fitted_network.head[0])


def test_rows_of_codes_start_at_the_mean_of_their_items_words():
    table = torch.randn(4, 3)
    words = [np.array([0, 1]), np.array([2]), np.array([3])]
    means = text_means(table, words, np.array([[0, 0], [0, 1], [1, 1]]), (2, 3))
    of_item = torch.stack([table[:2].mean(dim=0), table[2], table[3]])
    expected = [of_item[:2].mean(dim=0), of_item[2], of_item[0], of_item[1:].mean(dim=0), of_item.mean(dim=0)]
    torch.testing.assert_close(means, torch.stack(expected))


# -- texts -----------------------------------------------------------------------------------------------------------


def test_titles_and_descriptions_come_from_the_columns(texts):
    assert texts.titles[7] == "beige cup"
    assert texts.descriptions[7] == "wood. Ghent"


def test_one_text_column_gives_both_title_and_description():
    items = pl.DataFrame(
        {"item_id": ["a"], "text": ["one two three four five six seven eight nine ten eleven twelve x."]}
    )
    found = item_texts(items)
    assert found.titles == ["one two three four five six seven eight nine ten eleven twelve"]
    assert found.descriptions == ["one two three four five six seven eight nine ten eleven twelve x."]


def test_templates_name_columns(dataset):
    found = item_texts(dataset.items, "{material} {title}", "{made_in}")
    assert (found.titles[0], found.descriptions[0]) == ("glass amber bowl", "Porto")
    with pytest.raises(ConfigError, match="no column 'titel'"):
        item_texts(dataset.items, "{titel}")


def test_key_words_are_words_of_the_description_and_not_of_the_title():
    texts = ItemTexts(["red pen"] * 3, ["a red writing tool", "a red writing tool of steel", "paper of steel"])
    found = Interests.from_texts(texts)
    assert {word for word, _ in found.key_words[1]} == {"writing", "tool", "steel"}
    assert found.source == "key words of item texts"


def test_queries_come_from_the_review_of_the_last_training_item_and_of_no_other(texts, split, tmp_path):
    ids, path = split.dataset.catalogue.item_ids, tmp_path / "reviews.jsonl"
    last, tested = (int(part[4][-1]) for part in (split.train, split.test.histories))
    lines = [
        {"reviewerID": "user-4", "asin": ids[last], "reviewText": "sturdy handle, sturdy"},
        {"reviewerID": "user-4", "asin": ids[tested], "reviewText": "secret handle"},
        {"reviewerID": "user-9", "asin": ids[int(split.train[9][-1])], "reviewText": "sturdy secret"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    found, random = Interests.from_reviews(path, texts, split), np.random.default_rng(0)
    assert {word for word, _ in found.reviewed["user-4"]} == {"sturdy"}  # the others occur once in what is read
    assert found.query("user-4", last, random) == "sturdy"
    assert set(found.query("user-5", 1, random).split(", ")) <= {"wood", "ghent"}
    assert found.source == "key words of the reviews of 2 of 50 users, and of item texts"


def test_reviews_of_another_shop_are_refused(texts, split, tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text(json.dumps({"user_id": "nobody", "item_id": "nothing", "review": "fine"}))
    with pytest.raises(DataError, match="has no review of any user's last training item"):
        Interests.from_reviews(path, texts, split)
    with pytest.raises(ConfigError, match="Both interests and reviews are set"):
        LCRecConfig(interests="a", reviews="b")


def test_interests_of_a_file_come_first_and_the_rule_serves_the_others(texts, tmp_path):
    path = tmp_path / "interests.json"
    path.write_text(json.dumps({"user-1": {"preferences": ["old things"], "queries": ["a thing to drink from"]}}))
    found, random = Interests.from_file(path, texts), np.random.default_rng(0)
    assert found.preference("user-1", np.array([1, 2]), random) == "old things"
    assert found.query("user-1", 3, random) == "a thing to drink from"
    assert set(found.preference("user-2", np.array([1, 3]), random).split(", ")) <= {"wood", "glass", "ghent"}
    assert found.source == "texts of interests.json"


def test_the_published_file_of_interests_is_read(texts, tmp_path):
    path = tmp_path / "Shop.user.json"
    intention = {"train": {"3": {"item": 1, "inters": "1, 2", "querys": ["for me", "of it"]}}, "test": {}}
    path.write_text(json.dumps({"user_explicit_preference": {"3": ["a", "b", "c"]}, "user_vague_intention": intention}))
    found = Interests.from_file(path, texts)
    assert found.preferences["3"] == ["a", "b", "c"]
    assert found.queries["3"] == ["for me", "of it"]


@pytest.mark.parametrize(
    "content", ["[1]", '{"u": 3}', '{"u": {"queries": [3]}}', "{", '{"user_explicit_preference": 1}']
)
def test_a_file_that_holds_no_interests_is_refused(content, texts, tmp_path):
    path = tmp_path / "interests.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"recommender.interests: .*interests.json"):
        Interests.from_file(path, texts)


# -- prompts ---------------------------------------------------------------------------------------------------------


def test_words_are_those_of_the_whole_text(builder):
    """Pieces that are tokenised apart and joined spell the prompt that people read."""
    tokens = builder.prompt("seqrec", 0, Facts(np.array([0, 7])))
    text = builder.tokenizer.decode(tokens)
    assert text.startswith("Request: A user took these items in order:")
    assert text.replace(" ", "").endswith("<a_0><b_0>,<a_1><b_1>.Whatcomesnext?\nAnswer:")


def test_the_latest_items_are_read(language_model, semantic_ids):
    short = PromptBuilder(language_model.tokenizer, language_model.codes, semantic_ids.codes, max_items=2)
    long, recent = np.array([3, 4, 5, 6]), np.array([5, 6])
    assert np.array_equal(short.prompt("seqrec", 0, Facts(long)), short.prompt("seqrec", 0, Facts(recent)))


def test_a_history_is_shortened_and_the_answer_never(language_model, semantic_ids, texts):
    history = np.arange(20)
    limit = 40
    cut = PromptBuilder(language_model.tokenizer, language_model.codes, semantic_ids.codes, texts, max_tokens=limit)
    for task, number in [(name, n) for name in ("seqrec", "fusion") for n in range(len(TASKS[name]))]:
        request, answer = cut.sample(task, number, Facts(history, 21))
        assert len(request) + len(answer) <= limit
        assert answer[-1] == language_model.tokenizer.eos_token_id
        if TASKS[task][number].answer == "{index}":
            assert np.array_equal(answer[:-1], language_model.codes.of(semantic_ids.codes[21]))
    with pytest.raises(ConfigError, match=r"A prompt of \d+ tokens does not fit: max_tokens is 12"):
        PromptBuilder(language_model.tokenizer, language_model.codes, semantic_ids.codes, max_tokens=12).prompt(
            "seqrec", 0, Facts(history)
        )


def test_an_answer_that_is_too_long_is_refused(language_model, semantic_ids):
    texts = ItemTexts(["a"] * N_ITEMS, ["very long " * 100] * N_ITEMS)
    tight = PromptBuilder(
        language_model.tokenizer, language_model.codes, semantic_ids.codes, texts, max_tokens=64, text_tokens=200
    )
    number = next(n for n, one in enumerate(TASKS["index2item"]) if one.answer == "{description}")
    with pytest.raises(ConfigError, match=r"An answer of \d+ tokens does not fit into max_tokens = 64"):
        tight.sample("index2item", number, Facts(item=3))


def test_no_answer_stands_in_its_own_prompt(rows, builder, semantic_ids):
    """But for the ID that two items share: the one may follow the other."""
    seen, shared = set(), builder.index_tokens[28]
    for task, request, answer in every_sample(rows, builder):
        seen.add(task)
        wanted, asked = answer[:-1], request
        if np.array_equal(wanted, shared):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(asked, len(wanted)) if len(asked) >= len(wanted) else []
        assert not any(np.array_equal(window, wanted) for window in windows), builder.tokenizer.decode(request)
    assert seen == set(TASKS)


def test_training_and_serving_ask_in_the_same_words(trained, split, rows):
    history = split.train[3]
    asked = trained.history_prompt(history)
    with_texts = trained._builder(item_texts(split.dataset.items))
    assert np.array_equal(asked, with_texts.sample("seqrec", trained.config.template, Facts(history, 5))[0])
    assert trained.fitted_builder.fingerprint == with_texts.fingerprint == trained.asked["prompts"]


def test_the_beginning_of_a_text_is_marked_where_the_tokenizer_marks_it(folder, semantic_ids):
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pad = tokenizer.pad_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", pad)]
    )
    codes = CodeTokens.add(tokenizer, (5, 6))
    tokens = PromptBuilder(tokenizer, codes, semantic_ids.codes).prompt("seqrec", 0, Facts(np.array([1])))
    assert tokens[0] == pad
    assert (tokens == pad).sum() == 1


# -- rows ------------------------------------------------------------------------------------------------------------


def test_an_epoch_has_the_rows_of_the_paper(rows, split):
    n_pairs = int((split.train.lengths - 1).sum())
    assert rows.counts == {
        "seqrec": n_pairs, "item2index": N_ITEMS, "index2item": N_ITEMS, "fusion": 40,
        "itemsearch": 50, "preference": 50,
    }  # fmt: skip
    assert len(rows) == n_pairs + 2 * N_ITEMS + 40 + 100


def test_items_are_asked_about_as_often_as_the_setting_says(split, interests, builder):
    rows = TaskRows.of(split, ("seqrec", "item2index"), interests, fusion_rows=None, item_repeats=3, seed=0)
    assert rows.counts["item2index"] == 3 * N_ITEMS
    n_pairs = rows.counts["seqrec"]
    drawn = [rows.sample(n_pairs + 5 + repeat * N_ITEMS, 0, builder) for repeat in range(3)]
    assert all(np.array_equal(answer, drawn[0][1]) for _, answer in drawn)
    assert len({tuple(request.tolist()) for request, _ in drawn}) > 1


def test_the_last_training_item_is_what_was_looked_for(rows, split):
    start = sum(rows.counts[task] for task in ("seqrec", "item2index", "index2item", "fusion"))
    for user in (0, 17, 49):
        task, facts = rows._facts(start + user, np.random.default_rng(0))
        assert task == "itemsearch"
        assert facts.item == split.train[user][-1]
        assert np.array_equal(facts.history, split.train[user][:-1])


def test_rows_of_fusion_are_drawn_once_without_repeats(split, interests):
    drawn = [TaskRows.of(split, ("seqrec", "fusion"), interests, fusion_rows=60, seed=s).rows[1] for s in (0, 0, 1)]
    assert len(np.unique(drawn[0])) == 60
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_templates_are_drawn_anew_in_every_epoch_and_the_same_again(rows, builder):
    first, again, later = (every_sample(rows, builder, epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2]) for a, b in zip(first, again))
    assert sum(not np.array_equal(a[1], b[1]) for a, b in zip(first, later)) > len(first) / 2


def test_every_template_is_drawn(rows, builder):
    texts = {
        builder.tokenizer.decode(request)[:40]
        for epoch in range(8)
        for _, request, _ in every_sample(rows, builder, epoch)
    }
    heads = {one.request.split("{")[0].strip()[:20] for templates in TASKS.values() for one in templates}
    assert all(any(head in text for text in texts) for head in heads if head)


def test_labels_are_the_answer_and_its_end_and_nothing_else(rows, builder):
    objective = LCRecObjective(rows, builder, TRAINING)
    numbers = np.arange(0, len(rows), 7)
    step = objective.step(numbers, 0)
    samples = {
        tuple(np.concatenate(one).tolist()): one for row in numbers if (one := rows.sample(int(row), 0, builder))
    }
    n_seen = 0
    for part in step.parts:
        for row in range(len(part.tokens)):
            mine = part.rows == row
            labels, places = part.labels[mine], part.places[mine]
            tokens = torch.cat([part.tokens[row, : part.lengths[row]], labels[-1:]])
            request, answer = samples[tuple(tokens.tolist())]
            assert labels.tolist() == answer.tolist()
            assert places.tolist() == list(range(len(request) - 1, len(request) - 1 + len(answer)))
            n_seen += 1
    assert n_seen == sum(rows.sample(int(row), 0, builder) is not None for row in numbers)
    assert step.n_targets == sum(len(part.labels) for part in step.parts)


def test_unknown_tasks_and_missing_next_item_prediction_are_refused():
    with pytest.raises(ConfigError, match=r"no task called 'seqrek'. Did you mean 'seqrec'"):
        LCRecConfig(tasks=("seqrek",))
    with pytest.raises(ConfigError, match="Name seqrec, which recommending relies on"):
        LCRecConfig(tasks=("item2index",))
    with pytest.raises(ConfigError, match="names one twice"):
        LCRecConfig(tasks=("seqrec", "seqrec"))


def test_a_task_without_anything_to_ask_is_refused(dataset, semantic_ids):
    bare = Dataset(dataset.items.select("item_id", "title"), dataset.user_ids, dataset.sequences)
    with pytest.raises(DataError, match=r"give the task itemsearch nothing to ask. Leave it out"):
        LCRec(semantic_ids, SMALL, TRAINING).fit(leave_one_out(bare))


# -- loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_loss_is_that_of_the_full_logits(rows, builder, language_model, temperature):
    step = LCRecObjective(rows, builder, TRAINING).step(np.arange(0, len(rows), 9), 0)
    language_model.temperature = temperature
    for part in step.parts:
        ours = language_model(part).detach()
        mask = torch.arange(part.tokens.shape[1]) < part.lengths[:, None]
        logits = language_model.causal(input_ids=part.tokens, attention_mask=mask.long()).logits.double() / temperature
        labels = torch.full_like(part.tokens, -100)
        labels[part.rows, part.places] = part.labels
        full = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        assert float(ours) == pytest.approx(float(full.detach()), rel=1e-5)
    language_model.temperature = 1.0


def test_a_padded_batch_costs_what_its_rows_cost_alone(rows, builder, language_model):
    objective = LCRecObjective(rows, builder, dataclasses.replace(TRAINING, tokens_per_part=100_000))
    numbers = np.array([0, 3, len(rows) - 60, len(rows) - 20])
    (together,) = objective.step(numbers, 0).parts
    alone = [part for number in numbers for part in objective.step(np.array([number]), 0).parts]
    losses = [language_model(part).detach().item() for part in (together, *alone)]
    assert losses[0] == pytest.approx(sum(losses[1:]), rel=1e-5)


def test_recomputed_activations_give_the_same_loss_and_gradients(rows, builder, folder, semantic_ids):
    part = LCRecObjective(rows, builder, TRAINING).step(np.arange(0, 60, 9), 0).parts[0]
    gradients = []
    for checkpointing in (False, True):
        model = begin_language_model(str(folder), semantic_ids.codebook_sizes, checkpointing=checkpointing).train()
        model(part).backward()
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


# -- decoding --------------------------------------------------------------------------------------------------------


def brute_force(model, prompt, codes):
    """Log-probability of every ID behind a prompt, each in a pass of its own."""
    scores = []
    for item in model.codes.of(codes):
        tokens = torch.from_numpy(np.concatenate([prompt, item]))
        log_probs = (model.causal(input_ids=tokens[None]).logits[0] / model.temperature).log_softmax(dim=-1)
        scores.append(sum(float(log_probs[len(prompt) - 1 + at, token]) for at, token in enumerate(item.tolist())))
    return np.array(scores)


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_exact_scores_are_those_of_every_id_alone(language_model, builder, semantic_ids, temperature):
    language_model.temperature = temperature
    prompts = [builder.prompt("seqrec", 0, Facts(np.arange(n))) for n in (1, 4, 2)]
    with torch.inference_mode():
        decoder = PromptDecoder(language_model, prompts)
        found = exact_scores(decoder.node_log_probs, semantic_ids.trie()).numpy()
        for row, prompt in enumerate(prompts):
            assert found[row] == pytest.approx(brute_force(language_model, prompt, semantic_ids.codes), abs=2e-4)
    language_model.temperature = 1.0


def test_few_nodes_at_a_time_score_the_same(language_model, builder, semantic_ids, monkeypatch):
    prompts = [builder.prompt("seqrec", 0, Facts(np.arange(n))) for n in (1, 4, 2)]
    with torch.inference_mode():
        whole = exact_scores(PromptDecoder(language_model, prompts).node_log_probs, semantic_ids.trie())
        monkeypatch.setattr("tesserec.language.decoding.MASK_ENTRIES", 1)
        users = exact_scores(PromptDecoder(language_model, prompts).node_log_probs, semantic_ids.trie(), block=2)
    torch.testing.assert_close(whole, users, rtol=1e-5, atol=1e-5)


def test_a_beam_as_wide_as_the_catalogue_is_exact(trained, split):
    trained.exact = True
    exact = trained.rank(split.test)
    answer = trained.recommend(split.test.histories, 5)
    trained.exact = False
    beam, found = trained.rank(split.test), trained.recommend(split.test.histories, 5)
    assert beam.exact.all()
    assert np.array_equal(exact.ahead, beam.ahead)
    assert np.array_equal(exact.tied, beam.tied)
    assert found.scores == pytest.approx(answer.scores, abs=1e-4)


def test_allow_and_deny_hold_whatever_the_beam(trained, split):
    trained.beam_width = 2
    histories = split.test.histories
    allowed = [f"item-{row}" for row in range(0, N_ITEMS, 3)]
    answer = trained.recommend(histories, 4, allow=allowed, deny=["item-0", "item-3"], exclude_seen=True)
    trained.beam_width = SMALL.beam_width
    for history, items in zip(histories, answer.ids()):
        assert set(items) <= set(allowed) - {"item-0", "item-3"} - {f"item-{row}" for row in history}
    assert sum(map(len, answer.ids()))


# -- learning --------------------------------------------------------------------------------------------------------


def test_fifty_users_are_learned(trained, split):
    ranks = trained.rank(split.validation)
    assert np.mean(ranks.found & (ranks.ahead == 0)) > 0.9


READING = dataclasses.replace(SMALL, tasks=("seqrec", "item2index", "index2item"), max_items=2)
LONGER = dataclasses.replace(TRAINING, epochs=90, validate_every=90, batch_size=20)


def titled(dataset, titles):
    """Few users and these titles alone, so that reading is most of what is learned."""
    items = pl.DataFrame({"item_id": dataset.items["item_id"], "title": titles})
    return leave_one_out(Dataset(items, dataset.user_ids[:4], dataset.sequences.take(np.arange(4))))


@pytest.fixture(scope="module")
def reader(dataset, semantic_ids):
    return LCRec(semantic_ids, READING, LONGER).fit(titled(dataset, dataset.items["title"].to_list()))


def test_titles_lead_to_items_and_ids_to_titles(reader, dataset):
    titles = dataset.items["title"].to_list()[:28]  # the last two share an ID
    found = reader.find(titles, k=1).ids()
    assert np.mean([row[0] == f"item-{item}" for item, row in enumerate(found)]) > 0.9
    written = reader.describe([f"item-{row}" for row in range(28)])
    assert np.mean([text == title for text, title in zip(written, titles)]) > 0.9


def test_a_title_that_was_never_read_leads_to_its_item_if_codes_mean_something(dataset, semantic_ids):
    """Colour and shape of the hidden items occur in other titles, whose IDs share the codes; random IDs share none."""
    hidden, titles = [8, 15, 22], dataset.items["title"].to_list()
    split = titled(dataset, ["" if row in hidden else title for row, title in enumerate(titles)])
    places = []
    for codes in (semantic_ids.codes, semantic_ids.codes[np.random.default_rng(1).permutation(N_ITEMS)]):
        ids = SemanticIds(semantic_ids.catalogue, codes, semantic_ids.codebook_sizes)
        training = dataclasses.replace(LONGER, epochs=120, validate_every=120)
        model = LCRec(ids, dataclasses.replace(READING, tasks=("seqrec", "item2index")), training).fit(split)
        found = model.find([titles[row] for row in hidden], k=N_ITEMS).ids()
        places.append(np.mean([row.index(f"item-{item}") for item, row in zip(hidden, found)]))
    assert places[0] < 2
    assert places[1] > 5


def test_tastes_are_written(trained):
    (taste,) = trained.likings([["item-0", "item-3", "item-6"]])
    assert set(taste.split(", ")) & {"glass", "porto", "ghent"}
    with pytest.raises(DataError, match="has no item of the catalogue"):
        trained.likings([["nothing"]])


def test_questions_that_were_not_trained_are_refused(split, semantic_ids):
    config = dataclasses.replace(SMALL, tasks=("seqrec",))
    model = LCRec(semantic_ids, config, dataclasses.replace(TRAINING, max_steps=1)).fit(split)
    with pytest.raises(ConfigError, match="tuned on seqrec, not on item2index"):
        model.find(["amber bowl"])
    with pytest.raises(ConfigError, match="not on index2item"):
        model.describe(["item-1"])


def test_a_killed_training_ends_with_the_same_weights(split, semantic_ids, tmp_path):
    training = dataclasses.replace(TRAINING, epochs=2, validate_every=1)
    whole = LCRec(semantic_ids, SMALL, training).fit(split)
    begun = LCRec(semantic_ids, SMALL, dataclasses.replace(training, max_steps=None))

    class Killed(Exception):
        pass

    validations = iter([None])

    def kill(*arguments, **named):
        next(validations, Killed)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LCRec, "rank", kill)
        with pytest.raises(Killed):
            begun.fit(split, checkpoints=tmp_path)
    resumed = LCRec(semantic_ids, SMALL, training).fit(split, checkpoints=tmp_path)
    for (name, one), other in zip(whole.network.state_dict().items(), resumed.network.state_dict().values()):
        assert torch.equal(one, other), name


# -- adapters --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["tied", "untied"])
def adapted(request, split, semantic_ids, folder, untied):
    """A model tuned by adapters, and the folder that it was tuned from."""
    base = folder if request.param == "tied" else untied
    config = dataclasses.replace(SMALL, model=str(base), tuning="adapters", adapters=AdapterConfig(rank=4))
    return LCRec(semantic_ids, config, dataclasses.replace(TRAINING, epochs=3)).fit(split), base


def test_adapters_leave_old_rows_as_they_were_and_train_the_codes(adapted, semantic_ids):
    model, base = adapted
    begun = begin_language_model(str(base), semantic_ids.codebook_sizes)
    n_old = int(model.fitted_network.codes.all.min())
    network = model.fitted_network.causal
    for table, before in (
        (network.get_input_embeddings().weight, begun.causal.get_input_embeddings().weight),
        (network.get_output_embeddings().weight, begun.causal.get_output_embeddings().weight),
    ):
        assert torch.equal(table[:n_old], before[:n_old])
        assert not torch.isclose(table[n_old:], before[n_old:]).all(dim=1).any()
    frozen = {name: one for name, one in network.named_parameters() if not one.requires_grad}
    assert any("layers.0" in name for name in frozen)
    assert model.n_parameters < sum(one.numel() for one in network.parameters())


def test_adapters_alone_are_saved_and_give_the_same_answers(adapted, split, tmp_path):
    model, _ = adapted
    model.save(tmp_path / "saved")
    assert not list((tmp_path / "saved" / "model").glob("model*.safetensors"))
    loaded = load_recommender(tmp_path / "saved")
    before, after = model.recommend(split.test.histories, 5), loaded.recommend(split.test.histories, 5)
    assert np.array_equal(before.items, after.items)
    assert np.array_equal(before.scores, after.scores)
    tokens = torch.from_numpy(model.history_prompt(split.train[0]))[None]
    with torch.inference_mode():
        logits = [one.fitted_network.causal(input_ids=tokens).logits for one in (model, loaded)]
    assert torch.equal(*logits)


def test_a_tied_model_stays_tied(split, semantic_ids, folder):
    config = dataclasses.replace(SMALL, model=str(folder), tuning="adapters")
    model = LCRec(semantic_ids, config, dataclasses.replace(TRAINING, max_steps=3)).fit(split)
    causal = model.fitted_network.causal
    assert torch.equal(causal.get_input_embeddings().weight, causal.get_output_embeddings().weight)


def test_adapters_of_a_model_that_was_changed_or_is_gone_say_so(split, semantic_ids, folder, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    config = dataclasses.replace(SMALL, model=str(base), tuning="adapters")
    LCRec(semantic_ids, config, dataclasses.replace(TRAINING, max_steps=1)).fit(split).save(tmp_path / "saved")
    load_recommender(tmp_path / "saved")
    (base / "generation_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"The adapters' model and the one in .*base do not belong together"):
        load_recommender(tmp_path / "saved")
    shutil.rmtree(base)
    with pytest.raises(ConfigError, match=r"there is no folder .*base. Check the path, or put the model back"):
        load_recommender(tmp_path / "saved")


def test_adapters_that_fit_no_layer_are_refused(folder, semantic_ids):
    with pytest.raises(ConfigError, match=r"adapters.targets: nowhere do not fit Qwen3ForCausalLM"):
        begin_language_model(str(folder), semantic_ids.codebook_sizes, adapters=AdapterConfig(targets=("nowhere",)))
    with pytest.raises(ConfigError, match="the model is 'new' and has learned nothing yet"):
        LCRecConfig(tuning="adapters")


# -- what cannot be loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer"),
        ("config.json", "has no config.json"),
    ],
)
def test_a_model_folder_that_lacks_a_part_says_which(folder, removed, message, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / removed).unlink()
    with pytest.raises(ConfigError, match=message):
        begin_language_model(str(tmp_path / "model"), (5, 6))


def test_damaged_weights_say_which_folder(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"recommender.model: the folder .* cannot be loaded"):
        begin_language_model(str(tmp_path / "model"), (5, 6))


def test_codes_that_a_model_has_no_words_for_are_refused(language_model):
    with pytest.raises(ConfigError, match=r"no word for 7 codes, <b_6> among them"):
        CodeTokens.find(language_model.tokenizer, (5, 13))


def test_prompts_in_other_words_are_refused_on_loading(trained, tmp_path, monkeypatch):
    trained.save(tmp_path / "saved")
    monkeypatch.setattr("tesserec.language.prompts.FRAME", "Q: {request}\nA:")
    with pytest.raises(ArtifactError, match="The prompts that this model was trained on and those of this version"):
        load_recommender(tmp_path / "saved")


def test_a_model_that_reads_less_than_max_tokens_is_refused(split, semantic_ids):
    config = dataclasses.replace(SMALL, max_tokens=300)
    with pytest.raises(ConfigError, match="max_tokens is 300, but the model reads 256 at most"):
        LCRec(semantic_ids, config, TRAINING).fit(split)


def test_a_table_of_rounded_size_is_not_cut(folder, semantic_ids, tmp_path):
    from transformers import AutoModelForCausalLM

    shutil.copytree(folder, tmp_path / "model")
    causal = AutoModelForCausalLM.from_pretrained(folder)
    causal.resize_token_embeddings(2048, mean_resizing=False)
    causal.save_pretrained(tmp_path / "model")
    model = begin_language_model(str(tmp_path / "model"), semantic_ids.codebook_sizes)
    assert model.head[0].shape[0] == 2048


def test_the_same_seed_makes_the_same_model(texts, tmp_path):
    for name in ("one", "two"):
        new_model(texts.titles, tmp_path / name, NEW, seed=3)
    for file in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
