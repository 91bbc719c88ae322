"""A recipe is found by name, in a user's file, or in a saved config; anything else is named."""

import re

import pytest

from nova.errors import UsageError
from nova.recipes.catalogue import RECIPES, find_recipe, summaries
from nova.recipes.digits import digits_tiny
from nova.recipes.settle import settle

CHECKED_FIELDS = {"steps", "seed", "checkpoint_every", "log_every", "batch_size"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_comes_back_from_its_saved_config(name, tmp_path):
    config = find_recipe(name)
    assert set(type(config).model_fields) >= CHECKED_FIELDS
    settle(config, tmp_path)
    assert find_recipe(str(tmp_path / "config.json")) == config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_is_and_gives_a_command(name):
    function = getattr(RECIPES[name], "func", RECIPES[name])
    summary = summaries()[name]
    assert summary.endswith(".")
    assert summary == function.__doc__.splitlines()[0]
    told = re.findall(r"nova train (\S+) --output runs/", function.__doc__)
    assert told
    assert all(getattr(RECIPES[other], "func", RECIPES[other]) is function for other in told)


def test_a_function_in_a_users_file(tmp_path):
    file = tmp_path / "my_recipes.py"
    file.write_text(
        "from nova.recipes.digits import digits_tiny\n"
        "def longer():\n    return digits_tiny().model_copy(update={'steps': 9})\n"
        "def wrong():\n    return 3\n"
    )
    assert find_recipe(f"{file}:longer") == digits_tiny().model_copy(update={"steps": 9})
    with pytest.raises(UsageError, match="no function 'longest'; did you mean 'longer'"):
        find_recipe(f"{file}:longest")
    with pytest.raises(UsageError, match="returned a int"):
        find_recipe(f"{file}:wrong")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits-vidoe", "did you mean 'digits-video'"),
        ("nowhere.py:function", "there is no such file"),
        ("nowhere.json", "nowhere.json: missing"),
    ],
)
def test_what_is_not_there_is_named(name, message):
    with pytest.raises(UsageError, match=message):
        find_recipe(name)


def test_a_json_that_is_no_config(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"kind": "transformr"}')
    with pytest.raises(UsageError, match="kind is 'transformr'; did you mean 'transformer'"):
        find_recipe(str(file))
    file.write_text('{"kind": "transformer", "steps": 1, "batch_size": 1, "stepps": 2}')
    with pytest.raises(UsageError, match="stepps"):
        find_recipe(str(file))
