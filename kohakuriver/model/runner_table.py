"""All that a runner answers, put together from the files that say what belongs together."""

from kohakuriver.model import files_api, runner_api, runner_key_api, runner_vps_api, ssh_api, stream_api

ROUTES = (*runner_api.ROUTES, *files_api.RUNNER_ROUTES, *runner_vps_api.ROUTES, *runner_key_api.ROUTES)
CHANNELS = (*stream_api.AT_RUNNER, *ssh_api.AT_RUNNER)
