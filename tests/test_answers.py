"""The one reader of what a model wrote: thoughts, parts, cut answers, words, rankings, profiles, log-probabilities."""

import json
import math
from types import SimpleNamespace

import pytest

from promax_nb.profiles.answers import (
    Answer,
    answer_logprobs,
    as_answer,
    choice_schema,
    clean_profile,
    closing_mark,
    json_in,
    one_of,
    opens_thought,
    parse_ranking,
    ranking_schema,
    read_answer,
    text_of,
    why_cut,
    without_thoughts,
)

FEELINGS = ['like', 'neutral', 'dislike']

# Every kind of thought that is known to stand in front of an answer; {} is the answer.
THOUGHTS = [
    '<think>The user likes trains.</think>\n\n{}',
    'Okay, the user likes trains.\n</think>\n\n{}',
    '<think>\n\n</think>\n\n{}',
    '<THINK>trains</THINK>{}',
    '<think time="3">trains</think>{}',
    '<thinking>trains</thinking>{}',
    '<thought>trains</thought>{}',
    '<reasoning>trains</reasoning>\n{}',
    '<seed:think>trains</seed:think>{}',
    '[THINK]trains[/THINK]{}',
    'trains[/THINK]{}',
    '◁think▷trains◁/think▷{}',
    '<|begin_of_thought|>trains<|end_of_thought|>\n<|begin_of_solution|>{}<|end_of_solution|>',
    '<|START_THINKING|>trains<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>',
    '<|channel|>analysis<|message|>trains<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>',
    '<|channel|>analysis<|message|>trains<|end|><|start|>assistant<|channel|>final<|message|>{}',
    '<|channel|>commentary<|message|>trains<|call|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}',
    'analysisThe user likes trains.assistantfinal{}',
    '<think>trains <think>more trains</think> and more</think>{}',
    '<think>trains</think><think>more trains</think>{}',
    '<think>trains</think><answer>{}</answer>',
    '<think>trains</think>\n<answer>\n{}\n</answer>\n',
    '<unused94>thought\nThe user likes trains.<unused95>{}',
    '<internal_monologue>trains</internal_monologue>{}',
    '<reason>trains</reason>{}',
    '```thinking\nThe user likes trains.\n```\n{}',
    'Thought: The user likes trains.\nAnswer: {}',
    '**Reasoning:**\nThe user likes trains.\n\n**Final answer:**\n{}',
    '#### Analysis\nThe user likes trains.\n#### Answer\n{}',
    '<|im_start|>assistant\n<think>trains</think>{}<|im_end|>\n<|im_start|>user\nAnd now 4, 5?',
    '{}<|eot_id|>',
    '{}</s>',
]
ONLY_THOUGHTS = [
    '<think>The user likes trains, so I',
    '<think>trains</think>',
    'trains</think>\n',
    '[THINK]trains',
    '<thinking>trains',
    '<|begin_of_thought|>trains',
    '<|channel|>analysis<|message|>trains',
    'analysisThe user likes trains, so I',
    '<think>trains <think>more</think> and still',
    '<think>' * 2000,
]


@pytest.mark.parametrize('form', THOUGHTS)
def test_profiles_words_and_rankings_are_read_behind_thoughts_alike(form):
    assert clean_profile(form.replace('{}', 'Enjoys war novels set by the sea.')) == 'Enjoys war novels set by the sea.'
    assert one_of(FEELINGS)(form.replace('{}', 'dislike')) == 'dislike'
    assert parse_ranking(form.replace('{}', '3, 1, 2'), 5, 3) == ([2, 0, 1], [])
    assert parse_ranking(form.replace('{}', '{"ranking": [3, 1, 2]}'), 5, 3) == ([2, 0, 1], [])
    assert read_answer(Answer(form.replace('{}', 'Enjoys war.'))) == ('Enjoys war.', None)


@pytest.mark.parametrize('text', ONLY_THOUGHTS)
def test_nothing_but_thoughts_is_no_answer(text):
    assert without_thoughts(text) == ''
    with pytest.raises(ValueError, match='nothing is left'):
        clean_profile(text)
    with pytest.raises(ValueError, match='not one of'):
        one_of(FEELINGS)(text)
    assert parse_ranking(text, 5, 3)[0] == []
    value, reason = read_answer(Answer(text))
    assert value is None and 'thoughts' in reason and 'max_tokens' in reason


@pytest.mark.parametrize(
    'text',
    [
        'Enjoys stories that make one think.',
        'Enjoys <b>bold</b> books, analysis and reasoning.',
        '',
        'analysis of markets, finals',
        '  Enjoys tea.\n',
        json.dumps({'profile': 'Enjoys <think>marks</think> in texts.'}),
    ],
)
def test_text_without_thoughts_stays_as_it_is(text):
    assert without_thoughts(text) == text


def test_what_stands_before_a_thought_counts_too():
    assert without_thoughts('Enjoys tea. <think>hm</think>And coffee.') == 'Enjoys tea. And coffee.'
    assert without_thoughts('Enjoys tea.<think>shall I say more') == 'Enjoys tea.'


def test_marks_that_a_chat_format_opens():
    for mark in ('<think>', '<thinking>', '[THINK]', '<|begin_of_thought|>', '◁think▷'):
        assert opens_thought(f'<|assistant|>{mark}\n') == mark
        assert opens_thought(f'{mark}a{closing_mark(mark)}') is None
        assert without_thoughts(f'{mark}a{closing_mark(mark)}b') == 'b'
    assert opens_thought('') is opens_thought('no marks') is opens_thought('<think> about it') is None


# ---------------------------------------------------------------- content in parts

THINKING = {'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'The user likes trains.'}]}


@pytest.mark.parametrize(
    'content',
    [
        'Enjoys war.',
        [THINKING, {'type': 'text', 'text': 'Enjoys war.'}],
        [{'type': 'reasoning', 'text': 'trains'}, {'type': 'output_text', 'text': 'Enjoys war.'}],
        [{'type': 'redacted_thinking', 'data': 'trains'}, {'type': 'text', 'text': 'Enjoys '}, {'text': 'war.'}],
        [{'text': 'trains', 'thought': True}, {'text': 'Enjoys war.'}],
        [{'type': 'text', 'text': {'value': 'Enjoys war.'}}],
        [SimpleNamespace(type='reasoning', text='trains'), SimpleNamespace(type='text', text='Enjoys war.')],
        [{'type': 'message', 'content': [{'type': 'output_text', 'text': 'Enjoys war.'}]}],
        ['Enjoys ', 'war.'],
        [{'type': 'image_url', 'image_url': 'x'}, {'type': 'text', 'text': 'Enjoys war.'}],
        ({'type': 'text', 'text': 'Enjoys war.'},),
    ],
)
def test_the_text_parts_are_the_answer(content):
    assert text_of(content) == 'Enjoys war.'


@pytest.mark.parametrize('content', [None, [], [THINKING], [{'type': 'tool_use', 'name': 'x'}], [None], {}, b'', 3])
def test_content_without_text(content):
    assert text_of(content) == ''


def test_a_callable_may_return_parts():
    assert as_answer([THINKING, {'type': 'text', 'text': 'like'}]).text == 'like'
    assert as_answer(Answer('a', 1)) == Answer('a', 1) and as_answer('a') == Answer('a')
    assert 'int, not text' in read_answer(as_answer(3))[1] and 'NoneType' in read_answer(as_answer(None))[1]


# ---------------------------------------------------------------- cut answers


@pytest.mark.parametrize('finish', ['length', 'max_tokens', 'MAX_TOKENS', 'model_length', 'FINISH_REASON_MAX_TOKENS'])
def test_an_answer_cut_at_its_length(finish):
    assert 'max_tokens' in why_cut(finish) and finish in why_cut(finish)
    assert read_answer(Answer('Enjoys war and', finish=finish), clean_profile, whole=True) == (None, why_cut(finish))
    assert read_answer(Answer('like', finish=finish), one_of(FEELINGS)) == ('like', None)


@pytest.mark.parametrize('finish', ['content_filter', 'SAFETY', 'recitation', 'error', 'abort', 'tool_calls'])
def test_an_answer_cut_by_something_else(finish):
    assert finish in why_cut(finish) and 'max_tokens' not in why_cut(finish)


@pytest.mark.parametrize('finish', ['stop', 'STOP', 'end_turn', 'eos_token', 'stop_sequence', 'complete', '', None])
def test_an_answer_that_came_to_its_end(finish):
    assert why_cut(finish) is None
    assert read_answer(Answer('Enjoys war.', finish=finish), whole=True) == ('Enjoys war.', None)


# ---------------------------------------------------------------- one of a few words


@pytest.mark.parametrize(
    'text',
    [
        'dislike',
        ' Dislike. ',
        '**dislike**',
        'Answer: dislike',
        'Answer: **Dislike**.',
        '**Answer:** dislike',
        'Final answer: dislike',
        'The answer is dislike.',
        'So, the final answer is: dislike',
        'Sentiment: dislike\nConfidence: high',
        'They read slow books.\n\nAnswer: dislike\n\nThis follows from the history.',
        'Answer:\ndislike',
        '{"answer": "dislike"}',
        '```json\n{"answer": "dislike"}\n```',
        'Sure!\n{"sentiment": "Dislike", "reason": "they like slow books"}',
        '{"answer": "<think>like?</think>dislike"}',
        '["dislike"]',
        '{"result": {"label": "dislike"}}',
        '\\boxed{dislike}',
        '<answer>dislike</answer>',
        'dislike\n\nbecause it is slow',
        'Dislike: the pace is slow.',
        'Dislike - the pace is slow.',
        'dislike (too slow)',
        'Answer: dislike, because it is slow',
        '- dislike',
        '> Dislike 👎',
        'Answer：dislike',
        'Based on the profile, the answer is "dislike".',
        'So, the answer would be dislike.',
        '$\\boxed{\\text{dislike}}$',
        "{'answer': 'dislike'}",
    ],
)
def test_the_word_after_a_mark(text):
    assert one_of(FEELINGS)(text) == 'dislike'


@pytest.mark.parametrize(
    'text',
    [
        'I would not like it',
        'They would dislike the pace, I think.',
        'like or dislike',
        'like\ndislike',
        'Answer: like or dislike',
        'Answer: not like',
        'The answer is not dislike.',
        'The answer would not be dislike.',
        'dislike: they like other books',
        '{"answer": "like", "label": "dislike"}',
        '{"like": 0.7, "dislike": 0.3}',
        '{"answer": "love"}',
        'likes',
        'dis like',
        'like/dislike',
        '',
    ],
)
def test_no_word_out_of_prose(text):
    with pytest.raises(ValueError, match='not one of like, neutral, dislike'):
        one_of(FEELINGS)(text)


def test_odd_choices_stay_what_they_are():
    assert (
        one_of(['C++', 'C'])('C++') == one_of(['C++', 'C'])('C++!') == 'C++' and one_of(['4', '5'])('Answer: 5') == '5'
    )
    assert one_of(['yes', 'no'])('{"answer": "No"}') == 'no'


def test_schemas_are_json_and_strict():
    for schema in (choice_schema(FEELINGS), ranking_schema()):
        assert json.loads(json.dumps(schema))['additionalProperties'] is False
        assert schema['required'] == list(schema['properties'])


# ---------------------------------------------------------------- rankings


@pytest.mark.parametrize(
    'text',
    [
        '{"ranking": [3, 1, 2]}',
        '{"ranking": ["3", "1", "2"]}',
        '{"ranking": ["candidate 3", "candidate 1", "candidate 2"]}',
        '{"reason": "sea", "top": [3, 1, 2]}',
        '{"1": 3, "2": 1, "3": 2}',
        '{"ranking": [{"candidate": 3, "score": 0.9}, {"candidate": 1, "score": 0.5}, {"candidate": 2, "score": 0.1}]}',
        'Here is the ranking:\n```json\n[3, 1, 2]\n```\nEnjoy!',
        'The ranking is {"ranking": [3, 1, 2]}, since 4 and 5 are about bread.',
        '[{"candidate": 1, "rank": 2}, {"candidate": 2, "rank": 3}, {"candidate": 3, "rank": 1}]',
        '{"considered": [1, 2, 3, 4, 5], "ranking": [3, 1, 2]}',
        '{"ranking": {"1": 3, "2": 1, "3": 2}}',
        '{"candidates": [{"id": 3, "score": 0.9}, {"id": 1, "score": 0.5}, {"id": 2, "score": 0.1}]}',
        '[3.0, 1.0, 2.0]',
        "{'ranking': [3, 1, 2]}",
        '３，１，２',
    ],
)
def test_rankings_in_json(text):
    assert parse_ranking(text, 5, 3) == ([2, 0, 1], [])


def test_a_cut_ranking_loses_the_number_that_may_be_half():
    assert parse_ranking('3, 1, 1', 12, 3, cut=True)[0] == [2, 0]
    assert parse_ranking('{"ranking": [3, 1, 1', 12, 3, cut=True)[0] == [2, 0]
    assert parse_ranking('3, 1, 2,', 12, 3, cut=True)[0] == [2, 0, 1]
    assert parse_ranking('3, 1, 2.', 12, 3, cut=True)[0] == [2, 0, 1]


def test_json_is_found_or_not():
    assert json_in('no') is json_in('{') is json_in('{"a": ') is json_in('[' * 5000) is json_in('3') is None
    assert json_in('x [1, 2] y') == [1, 2] and json_in('[]') is None


# ---------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    'text',
    [
        '{"profile": "Enjoys tea."}',
        '```json\n{"profile": "Enjoys tea."}\n```',
        '{"summarization": "Enjoys tea.", "reasoning": "They rated tea high."}',
        '{"profile": "<think>tea?</think>Enjoys tea."}',
        '{"user": "Enjoys tea."}',
        '{"user_profile": {"summary": "Enjoys tea."}}',
        '[{"profile": "Enjoys tea."}]',
        "{'profile': 'Enjoys tea.'}",
        '{"profile": ["Enjoys", "tea."]}',
    ],
)
def test_a_profile_in_json(text):
    assert clean_profile(text) == 'Enjoys tea.'


@pytest.mark.parametrize(
    'wrapping', ['**User Profile**\n\n', '# Profile of the user\n', 'Okay, here is the summary:\n', 'Summary: ']
)
def test_headings_are_no_part_of_a_profile(wrapping):
    assert clean_profile(wrapping + 'Enjoys tea.') == 'Enjoys tea.'


@pytest.mark.parametrize(
    'text',
    [
        "I'm sorry, but I can't help with that.",
        'I cannot provide a profile of a real person.',
        'As an AI, I have no access to histories.',
        'N/A',
        'null',
        '{"error": "rate limit"}',
    ],
)
def test_a_refusal_is_no_profile(text):
    with pytest.raises(ValueError, match='refused|nothing is left|tells of an error'):
        clean_profile(text)


def test_json_that_holds_no_single_profile_is_not_guessed_at():
    assert 'coffee' in clean_profile('{"a": "Enjoys tea.", "b": "Enjoys coffee."}')


# ---------------------------------------------------------------- log-probabilities


def token(text, *likeliest):
    entries = [{'token': t, 'logprob': p} for t, p in likeliest]
    return {'token': text, 'logprob': -0.1, 'top_logprobs': entries}


SURE = (('like', -0.01), ('neutral', -5.0), ('dis', -7.0))
NOISE = (('Okay', -0.1), ('D', -4.0), ('Let', -5.0), ('N', -9.0), ('L', -12.0))


@pytest.mark.parametrize(
    'text, tokens',
    [
        ('like', [token('like', *SURE)]),
        (' like', [token(' like', *[(f' {t}', p) for t, p in SURE])]),
        ('like', [token('Ġlike', *[(f'Ġ{t}', p) for t, p in SURE])]),
        ('\n\nlike', [token('\n\n', ('\n\n', -0.1)), token('like', *SURE)]),
        ('like', [token('Okay', *NOISE), token('</think>'), token('like', *SURE)]),  # thoughts split off, mark kept
        ('like', [token('Okay', *NOISE), token(' I dislike it. '), token('like', *SURE)]),  # split off without a mark
        ('like', [token('Okay', *NOISE), token('</'), token('think'), token('>\n'), token('like', *SURE)]),
        ('<think>like</think>like', [*map(token, ('<think>', 'like', '</think>')), token('like', *SURE)]),
        ('Answer: like', [token('Answer', *NOISE), token(': '), token('like', *SURE)]),
        ('{"answer": "like"}', [token('{"', *NOISE), *map(token, ('answer', '": "')), token('like', *SURE)]),
        ('**like**', [token('**', *NOISE), token('like', *SURE), token('**')]),
        (
            '<|channel|>analysis<|message|>dislike?<|end|><|channel|>final<|message|>like',
            [*map(token, ('<|channel|>', 'analysis', '<|message|>')), token('dis', *NOISE), token('like?', *NOISE)]
            + [*map(token, ('<|end|>', '<|channel|>', 'final', '<|message|>')), token('like', *SURE)],
        ),
    ],
)
def test_probabilities_are_those_where_the_answer_begins(text, tokens):
    found = answer_logprobs(Answer(text, logprobs=tuple(tokens)), FEELINGS)
    assert found == {'like': pytest.approx(-0.01), 'neutral': -5.0, 'dislike': -7.0}


def test_pieces_of_a_word_are_added_and_the_unnamed_count_as_the_last():
    tokens = (token(' Like', (' Like', -1.0), ('lik', -2.0), (' dis', -3.0), ('x', -4.0)),)
    found = answer_logprobs(Answer('Like.', logprobs=tokens), FEELINGS)
    assert found['like'] == pytest.approx(math.log(math.exp(-1) + math.exp(-2)))
    assert found['dislike'] == -3.0 and found['neutral'] == -4.0


@pytest.mark.parametrize(
    'text, tokens',
    [
        ('like', []),
        ('like', [token('like')]),  # the server gave no likeliest
        ('I cannot say', [token('I', *SURE)]),
        ('like', [token('other', *NOISE)]),  # tokens of something else
        ('<think>like', [token('<think>'), token('like', *SURE)]),
    ],
)
def test_no_probabilities_rather_than_wrong_ones(text, tokens):
    assert answer_logprobs(Answer(text, logprobs=tuple(tokens)), FEELINGS) == {}


@pytest.mark.parametrize('entries', [[('like', -0.1)], [('like', -0.1), ('dislike', float('-inf'))]])
def test_one_likely_token_says_nothing_about_the_others(entries):
    assert answer_logprobs(Answer('like', logprobs=(token('like', *entries),)), FEELINGS) == {}


@pytest.mark.parametrize('odd', [[], [('like', float('nan'))]])
def test_the_drawn_token_need_not_be_among_the_likeliest(odd):
    drawn = (token('like', ('dislike', -1.0), ('neutral', -2.0), *odd),)
    assert answer_logprobs(Answer('like', logprobs=drawn), FEELINGS) == {
        'like': pytest.approx(-0.1),
        'neutral': -2.0,
        'dislike': -1.0,
    }


def test_prefixes_that_two_choices_share_count_for_neither():
    tokens = (token('pos', ('pos', -0.1), ('positive', -1.0), ('possible', -2.0)), token('itive'))
    found = answer_logprobs(Answer('positive', logprobs=tokens), ['positive', 'possible'])
    assert found == {'positive': -1.0, 'possible': -2.0}
