"""The workbench: everything follows what is picked, tabs wait until they are opened, the state comes back."""

import pytest

from promax_nb.views.maps import Projection, project_scene
from promax_nb.views.scene import Scene, toy_scene
from promax_nb.views.workbench import TABS, Workbench


@pytest.fixture(scope='module')
def scene():
    return toy_scene(60, 40, epochs=2)


@pytest.fixture(scope='module')
def projection(scene):
    return project_scene(scene, method='started', progress=False)


@pytest.fixture
def bench(scene, projection):
    return Workbench(scene, projection)


def test_everything_follows_and_what_is_behind_a_tab_waits(bench):
    assert isinstance(bench.map.projection, Projection) and bench.tab == 'person' and bench.picked == ('user', 0)
    bench.browser.show('user', 'r0005')
    assert bench.picked == bench.map.picked == ('user', 5) and bench.distribution.user == 0
    bench.tabs.selected_index = 1
    assert bench.tab == 'distribution' and bench.distribution.user == 5
    bench.distribution.user = 9  # by its own list
    assert bench.picked == bench.browser.picked == bench.map.picked == ('user', 9)
    bench.map.picked = 'item', 3
    assert bench.browser.picked == ('item', 3) and bench.distribution.user == 9, 'an item has no distribution'
    assert bench.error is None


def test_groups_are_compared_where_they_are_asked_for(bench):
    bench.state = {'tab': 'groups'}
    assert 'draw around points' in bench.groups.value
    bench.map.keep('A', range(20)).keep('B', range(20, 50))
    assert '<b>A</b>' in bench.groups.value and '<b>B</b>' in bench.groups.value and bench.error is None
    bench.map.keep('B', []).keep('A', range(60, 80))
    assert '20 items' in bench.groups.value


def test_the_state_comes_back_and_wrong_ones_get_a_sentence(bench, scene, projection):
    wanted = {'picked': ('item', 'b0003'), 'query': '', 'tab': 'candidates', 'colour': 'kind', 'blend': 0.5}
    bench.state = wanted
    assert {name: bench.state[name] for name in wanted} == wanted
    other = Workbench(scene, projection)
    other.state = bench.state
    assert other.state == bench.state and other.map.picked == ('item', 3)
    for wrong, said in (
        ({'tab': 'people'}, 'use one of person, distribution'),
        ({'colours': 'kind'}, 'no part of the state: use colour'),
        ({'picked': ('user', 'r9999')}, 'no user is called'),
        ({'map': '<b>'}, 'there is no map'),
        ({'blend': 3}, 'outside of 0'),
    ):
        with pytest.raises(ValueError, match=said):
            other.state = wrong


def test_a_scene_with_less_has_fewer_tabs(scene):
    bare = Workbench(Scene(scene.data, before=scene.before, after=scene.after), project={'method': 'started'})
    assert list(bare.tabs.titles) == ['person', 'groups'] and bare.distribution is bare.candidates is None
    assert bare.state['picked'] == ('user', 'r0000') and 'colour' not in bare.state
    bare.map.work.wait()
    assert set(TABS) > set(bare.tabs.titles) and 'text/html' in bare._repr_mimebundle_()
