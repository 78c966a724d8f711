"""The clients: one method for each thing that Modelkeep does, once to block and once to be awaited.

What a method does is said once, by the operation of the same name in the module of its noun.
"""

from typing import Self

from modelkeep.client import access, desired, history, lifecycle, people, predicting, pushing, roles
from modelkeep.client import alerts as of_alerts
from modelkeep.client import aliases as of_aliases
from modelkeep.client import approvals as of_approvals
from modelkeep.client import audit as of_audit
from modelkeep.client import deployments as of_deployments
from modelkeep.client import feedback as of_feedback
from modelkeep.client import models as of_models
from modelkeep.client import rollouts as of_rollouts
from modelkeep.client import sessions as of_sessions
from modelkeep.client.calls import awaited, blocking
from modelkeep.client.connection import AsyncConnection, Caller, Connection, Trust
from modelkeep.client.session_file import SessionFile

DEFAULT_URL = "http://127.0.0.1:8080"


class Client:
    """Talks to one Modelkeep server. Use it as a context manager, or call `close()`; threads may share it.

    `api_key`: a key with the scopes of what is done (`modelkeep keys create`); without one, `login` asks as a person, and
    `session` is a file that keeps the login beyond this client. `timeout`: seconds to wait for an answer.
    `retries`: how often what may pass (429, 503, a connection that breaks or is refused) is tried again, within `timeout`;
    only what cannot happen twice by it. `verify`: for https, True for the system's certificates or the path of a file with
    others. `certificate`: where the server asks for one, a PEM file with certificate and key, or the pair of both files.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        session: SessionFile | None = None,
        verify: bool | str = True,
        certificate: str | tuple[str, str] | None = None,
    ) -> None:
        self._connection = Connection(url, Caller(api_key, session), timeout, retries, Trust(verify, certificate))

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    push = blocking(pushing.push)
    predict = blocking(predicting.predict)
    predict_many = blocking(predicting.predict_many)
    wait_ready = blocking(pushing.wait_ready)
    wait_serving = blocking(pushing.wait_serving)

    models = blocking(of_models.models)
    model = blocking(of_models.model)
    versions = blocking(of_models.versions)
    version = blocking(of_models.version)
    describe = blocking(of_models.describe)
    archive = blocking(of_models.archive)
    restore = blocking(of_models.restore)
    download = blocking(of_models.download)

    deprecate = blocking(lifecycle.deprecate)
    revive = blocking(lifecycle.revive)
    trash = blocking(lifecycle.trash)
    hold = blocking(lifecycle.hold)
    release = blocking(lifecycle.release)
    purge = blocking(lifecycle.purge)
    erasures = blocking(lifecycle.erasures)
    changes = blocking(lifecycle.changes)
    lineage = blocking(lifecycle.lineage)

    aliases = blocking(of_aliases.aliases)
    set_alias = blocking(of_aliases.set_alias)
    wait_alias = blocking(of_aliases.wait_alias)
    delete_alias = blocking(of_aliases.delete_alias)
    alias_history = blocking(of_aliases.alias_history)

    deployments = blocking(of_deployments.deployments)
    deployment = blocking(of_deployments.deployment)
    promote = blocking(of_deployments.promote)
    configure = blocking(of_deployments.configure)
    create_deployment = blocking(of_deployments.create_deployment)
    delete_deployment = blocking(of_deployments.delete_deployment)
    set_traffic = blocking(of_deployments.set_traffic)
    plan = blocking(of_deployments.plan)
    rollback = blocking(of_deployments.rollback)
    revisions = blocking(of_deployments.revisions)
    as_of = blocking(of_deployments.as_of)
    shadow = blocking(of_deployments.shadow)
    shadows = blocking(of_deployments.shadows)
    schedule = blocking(of_deployments.schedule)
    scheduled = blocking(of_deployments.scheduled)
    cancel_scheduled = blocking(of_deployments.cancel_scheduled)

    feedback = blocking(of_feedback.feedback)
    send_feedback = blocking(of_feedback.send_feedback)
    list_feedback = blocking(of_feedback.list_feedback)
    prediction_feedback = blocking(of_feedback.prediction_feedback)

    export = blocking(desired.export)
    compare = blocking(desired.compare)
    apply = blocking(desired.apply)

    rollouts = blocking(of_rollouts.rollouts)
    rollout = blocking(of_rollouts.rollout)
    start_rollout = blocking(of_rollouts.start_rollout)
    pause_rollout = blocking(of_rollouts.pause_rollout)
    resume_rollout = blocking(of_rollouts.resume_rollout)
    advance_rollout = blocking(of_rollouts.advance_rollout)
    promote_rollout = blocking(of_rollouts.promote_rollout)
    roll_back_rollout = blocking(of_rollouts.roll_back_rollout)
    rollout_evidence = blocking(of_rollouts.rollout_evidence)
    watch_rollout = blocking(of_rollouts.watch_rollout)

    alerts = blocking(of_alerts.alerts)
    alert = blocking(of_alerts.alert)
    acknowledge_alert = blocking(of_alerts.acknowledge_alert)
    resolve_alert = blocking(of_alerts.resolve_alert)

    predictions = blocking(history.predictions)
    prediction = blocking(history.prediction)
    export_predictions = blocking(history.export_predictions)
    replay = blocking(history.replay)
    wait_replay = blocking(history.wait_replay)
    replay_result = blocking(history.replay_result)
    replays = blocking(history.replays)

    workspaces = blocking(roles.workspaces)
    create_workspace = blocking(roles.create_workspace)
    remove_workspace = blocking(roles.remove_workspace)
    move_model = blocking(roles.move_model)
    groups = blocking(roles.groups)
    create_group = blocking(roles.create_group)
    remove_group = blocking(roles.remove_group)
    members = blocking(roles.members)
    add_member = blocking(roles.add_member)
    remove_member = blocking(roles.remove_member)
    grants = blocking(roles.grants)
    give_role = blocking(roles.give_role)
    take_role = blocking(roles.take_role)
    explain = blocking(roles.explain)
    approvals = blocking(of_approvals.approvals)
    approval = blocking(of_approvals.approval)
    approve = blocking(of_approvals.approve)
    refuse = blocking(of_approvals.refuse)
    audit = blocking(of_audit.audit)
    export_audit = blocking(of_audit.export_audit)
    erase_from_audit = blocking(of_audit.erase_from_audit)

    login = blocking(of_sessions.login)
    begin_login = blocking(of_sessions.begin_login)
    finish_login = blocking(of_sessions.finish_login)
    refresh = blocking(of_sessions.refresh)
    logout = blocking(of_sessions.logout)
    me = blocking(of_sessions.me)
    rename_me = blocking(of_sessions.rename_me)
    change_password = blocking(of_sessions.change_password)
    sessions = blocking(of_sessions.sessions)
    end_session = blocking(of_sessions.end_session)
    login_providers = blocking(of_sessions.login_providers)
    rotate_signing_key = blocking(of_sessions.rotate_signing_key)

    users = blocking(people.users)
    user = blocking(people.user)
    add_user = blocking(people.add_user)
    rename_user = blocking(people.rename_user)
    disable_user = blocking(people.disable_user)
    enable_user = blocking(people.enable_user)
    sign_out_user = blocking(people.sign_out_user)
    reset_password = blocking(people.reset_password)
    set_password = blocking(people.set_password)
    register = blocking(people.register)
    invitations = blocking(people.invitations)
    invite = blocking(people.invite)
    withdraw_invitation = blocking(people.withdraw_invitation)

    setup = blocking(access.setup)
    keys = blocking(access.keys)
    create_key = blocking(access.create_key)
    revoke_key = blocking(access.revoke_key)
    rotate_key = blocking(access.rotate_key)
    bind_key = blocking(access.bind_key)
    end_previous_secret = blocking(access.end_previous_secret)
    safety = blocking(access.safety)
    allow_code = blocking(access.allow_code)
    accept_sandbox = blocking(access.accept_sandbox)
    health = blocking(access.health)
    readiness = blocking(access.readiness)


class AsyncClient:
    """The same methods, awaited. Use it as an asynchronous context manager, or await `close()`.

    Files and what else blocks are read in threads; callbacks are called in the event loop, but for `on_packing`. Arguments are
    those of `Client`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        session: SessionFile | None = None,
        verify: bool | str = True,
        certificate: str | tuple[str, str] | None = None,
    ) -> None:
        self._connection = AsyncConnection(url, Caller(api_key, session), timeout, retries, Trust(verify, certificate))

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    push = awaited(pushing.push)
    predict = awaited(predicting.predict)
    predict_many = awaited(predicting.predict_many)
    wait_ready = awaited(pushing.wait_ready)
    wait_serving = awaited(pushing.wait_serving)

    models = awaited(of_models.models)
    model = awaited(of_models.model)
    versions = awaited(of_models.versions)
    version = awaited(of_models.version)
    describe = awaited(of_models.describe)
    archive = awaited(of_models.archive)
    restore = awaited(of_models.restore)
    download = awaited(of_models.download)

    deprecate = awaited(lifecycle.deprecate)
    revive = awaited(lifecycle.revive)
    trash = awaited(lifecycle.trash)
    hold = awaited(lifecycle.hold)
    release = awaited(lifecycle.release)
    purge = awaited(lifecycle.purge)
    erasures = awaited(lifecycle.erasures)
    changes = awaited(lifecycle.changes)
    lineage = awaited(lifecycle.lineage)

    aliases = awaited(of_aliases.aliases)
    set_alias = awaited(of_aliases.set_alias)
    wait_alias = awaited(of_aliases.wait_alias)
    delete_alias = awaited(of_aliases.delete_alias)
    alias_history = awaited(of_aliases.alias_history)

    deployments = awaited(of_deployments.deployments)
    deployment = awaited(of_deployments.deployment)
    promote = awaited(of_deployments.promote)
    configure = awaited(of_deployments.configure)
    create_deployment = awaited(of_deployments.create_deployment)
    delete_deployment = awaited(of_deployments.delete_deployment)
    set_traffic = awaited(of_deployments.set_traffic)
    plan = awaited(of_deployments.plan)
    rollback = awaited(of_deployments.rollback)
    revisions = awaited(of_deployments.revisions)
    as_of = awaited(of_deployments.as_of)
    shadow = awaited(of_deployments.shadow)
    shadows = awaited(of_deployments.shadows)
    schedule = awaited(of_deployments.schedule)
    scheduled = awaited(of_deployments.scheduled)
    cancel_scheduled = awaited(of_deployments.cancel_scheduled)

    feedback = awaited(of_feedback.feedback)
    send_feedback = awaited(of_feedback.send_feedback)
    list_feedback = awaited(of_feedback.list_feedback)
    prediction_feedback = awaited(of_feedback.prediction_feedback)

    export = awaited(desired.export)
    compare = awaited(desired.compare)
    apply = awaited(desired.apply)

    rollouts = awaited(of_rollouts.rollouts)
    rollout = awaited(of_rollouts.rollout)
    start_rollout = awaited(of_rollouts.start_rollout)
    pause_rollout = awaited(of_rollouts.pause_rollout)
    resume_rollout = awaited(of_rollouts.resume_rollout)
    advance_rollout = awaited(of_rollouts.advance_rollout)
    promote_rollout = awaited(of_rollouts.promote_rollout)
    roll_back_rollout = awaited(of_rollouts.roll_back_rollout)
    rollout_evidence = awaited(of_rollouts.rollout_evidence)
    watch_rollout = awaited(of_rollouts.watch_rollout)

    alerts = awaited(of_alerts.alerts)
    alert = awaited(of_alerts.alert)
    acknowledge_alert = awaited(of_alerts.acknowledge_alert)
    resolve_alert = awaited(of_alerts.resolve_alert)

    predictions = awaited(history.predictions)
    prediction = awaited(history.prediction)
    export_predictions = awaited(history.export_predictions)
    replay = awaited(history.replay)
    wait_replay = awaited(history.wait_replay)
    replay_result = awaited(history.replay_result)
    replays = awaited(history.replays)

    workspaces = awaited(roles.workspaces)
    create_workspace = awaited(roles.create_workspace)
    remove_workspace = awaited(roles.remove_workspace)
    move_model = awaited(roles.move_model)
    groups = awaited(roles.groups)
    create_group = awaited(roles.create_group)
    remove_group = awaited(roles.remove_group)
    members = awaited(roles.members)
    add_member = awaited(roles.add_member)
    remove_member = awaited(roles.remove_member)
    grants = awaited(roles.grants)
    give_role = awaited(roles.give_role)
    take_role = awaited(roles.take_role)
    explain = awaited(roles.explain)
    approvals = awaited(of_approvals.approvals)
    approval = awaited(of_approvals.approval)
    approve = awaited(of_approvals.approve)
    refuse = awaited(of_approvals.refuse)
    audit = awaited(of_audit.audit)
    export_audit = awaited(of_audit.export_audit)
    erase_from_audit = awaited(of_audit.erase_from_audit)

    login = awaited(of_sessions.login)
    begin_login = awaited(of_sessions.begin_login)
    finish_login = awaited(of_sessions.finish_login)
    refresh = awaited(of_sessions.refresh)
    logout = awaited(of_sessions.logout)
    me = awaited(of_sessions.me)
    rename_me = awaited(of_sessions.rename_me)
    change_password = awaited(of_sessions.change_password)
    sessions = awaited(of_sessions.sessions)
    end_session = awaited(of_sessions.end_session)
    login_providers = awaited(of_sessions.login_providers)
    rotate_signing_key = awaited(of_sessions.rotate_signing_key)

    users = awaited(people.users)
    user = awaited(people.user)
    add_user = awaited(people.add_user)
    rename_user = awaited(people.rename_user)
    disable_user = awaited(people.disable_user)
    enable_user = awaited(people.enable_user)
    sign_out_user = awaited(people.sign_out_user)
    reset_password = awaited(people.reset_password)
    set_password = awaited(people.set_password)
    register = awaited(people.register)
    invitations = awaited(people.invitations)
    invite = awaited(people.invite)
    withdraw_invitation = awaited(people.withdraw_invitation)

    setup = awaited(access.setup)
    keys = awaited(access.keys)
    create_key = awaited(access.create_key)
    revoke_key = awaited(access.revoke_key)
    rotate_key = awaited(access.rotate_key)
    bind_key = awaited(access.bind_key)
    end_previous_secret = awaited(access.end_previous_secret)
    safety = awaited(access.safety)
    allow_code = awaited(access.allow_code)
    accept_sandbox = awaited(access.accept_sandbox)
    health = awaited(access.health)
    readiness = awaited(access.readiness)
