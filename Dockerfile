# The image of all three actions. The runner needs root (outputs are files of the host) and mounts the
# workspace as the working folder, so there is no USER and no WORKDIR, and no code below /github.
FROM python:3.13-slim

COPY requirements/action.txt /opt/sentryagent/requirements.txt
RUN /usr/local/bin/python -m pip install --no-cache-dir --no-deps --require-hashes \
        --disable-pip-version-check --root-user-action ignore -r /opt/sentryagent/requirements.txt

COPY sentryagent_actions/*.py /opt/sentryagent/sentryagent_actions/
COPY sentryagent_actions/sentryagent-revoke /usr/local/bin/sentryagent-revoke
# A .pth file makes the package importable under -I, which keeps the workspace and PYTHONPATH out of the
# import path. unchecked-hash: the bytecode is never compared with files that nobody changes.
RUN /usr/local/bin/python -c "import pathlib, sysconfig; \
pathlib.Path(sysconfig.get_path('purelib'), 'sentryagent.pth').write_text('/opt/sentryagent\n')" \
    && /usr/local/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/sentryagent

ENTRYPOINT ["/usr/local/bin/python", "-I", "-u", "-m", "sentryagent_actions"]
