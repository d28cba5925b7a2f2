import pytest

from mock_idp.runner.action import Input, load_action
from mock_idp.runner.errors import ActionError

ACTION = """
name: Sample
inputs:
  flag:
    default: true
  old:
    deprecationMessage: use flag
  bare:
runs:
  using: docker
  image: Dockerfile
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def _load(folder, text=ACTION, name="action.yml"):
    (folder / name).write_text(text)
    return load_action(folder)


def test_inputs_have_textual_defaults(folder):
    """YAML's `true` becomes the string "true", as on GitHub."""
    assert _load(folder).inputs == (Input("flag", "true"), Input("old", "", "use flag"), Input("bare"))


def test_action_yml_is_preferred(folder):
    """The runner prefers action.yml to action.yaml."""
    _load(folder, ACTION.replace("Sample", "Other"), "action.yaml")

    assert _load(folder).name == "Sample"


def test_action_yaml_is_found(folder):
    """action.yaml works too."""
    assert _load(folder, name="action.yaml").name == "Sample"


def test_the_image_may_lie_beside_the_folder(tmp_path):
    """Several actions can share the repository's image as `../Dockerfile`."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    folder = tmp_path / "issue-token"
    folder.mkdir()

    action = _load(folder, ACTION.replace("Dockerfile", "../Dockerfile"))

    assert action.dockerfile == (tmp_path / "Dockerfile").resolve()


def test_stages_and_arguments_are_read(folder):
    """An empty argument is kept, and conditions default to always()."""
    text = f"{ACTION}  args: [a, '', 3]\n  env: {{A: 1}}\n  pre-entrypoint: p\n  post-entrypoint: q\n  entrypoint: e\n"

    action = _load(folder, text)

    assert (action.args, action.env) == (("a", "", "3"), (("A", "1"),))
    assert (action.entrypoint, action.pre_entrypoint, action.post_entrypoint) == ("e", "p", "q")
    assert (action.pre_if, action.post_if) == ("always()", "always()")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("text", "`runs.using` must be docker"),
        (ACTION.replace("docker", "node20"), "`runs.using` must be docker"),
        (ACTION.replace("Dockerfile", "image.tar"), r"'\[path\]/Dockerfile'"),
        (ACTION.replace("Dockerfile", "x.Dockerfile"), "which does not exist"),
        (f"{ACTION}  args: text\n", "`runs.args` must be a list"),
        (f"{ACTION}  env: text\n", "`env` must be a mapping"),
        (f"{ACTION}  post-if: github.ref\n", "supports always"),
        ("runs: {using: docker, image: Dockerfile}\ninputs: [a]", "`inputs` must be a mapping"),
    ],
)
def test_what_cannot_be_run_is_refused(folder, text, message):
    """An unsupported action is refused with a message that names the field."""
    with pytest.raises(ActionError, match=message):
        _load(folder, text)


def test_a_folder_without_metadata_is_refused(tmp_path):
    """A folder without metadata is refused with the runner's message."""
    with pytest.raises(ActionError, match=r"Can't find 'action\.yml', 'action\.yaml' or 'Dockerfile' under"):
        load_action(tmp_path)


def test_a_folder_with_a_dockerfile_alone_is_an_action(tmp_path):
    """A folder with only a Dockerfile is an action without inputs, named after the folder."""
    (tmp_path / "dockerfile").write_text("FROM scratch")

    action = load_action(tmp_path)

    assert (action.name, action.dockerfile, action.inputs) == (tmp_path.name, tmp_path / "dockerfile", ())


@pytest.mark.parametrize("prefix", ["docker://", "Docker://"])
def test_a_published_image_is_named_without_its_prefix(folder, prefix):
    """A published image is not built, and its name has no `docker://` prefix."""
    (folder / "action.yml").write_text(ACTION.replace("Dockerfile", f"{prefix}alpine:3"))

    action = load_action(folder)

    assert (action.image, action.dockerfile) == ("alpine:3", None)
