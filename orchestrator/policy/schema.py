"""What policies may speak of. A misspelt attribute is refused when a file is read, not when it decides.

Source: Cedar 4, human-readable schema syntax.
"""

SCHEMA = """
entity Tenant;
entity Role;
entity Group;
entity Principal in [Tenant, Role, Group] = { id: String, tenant: String };
entity Server;
entity Tool in [Server] = { name: String, server: String, readOnly: Bool, destructive: Bool, openWorld: Bool };
entity Pool;
entity Node in [Pool] = { name: String, pool: String, location: String, capabilities: Set<String> };
entity Resource = { name: String, risk: Long };
action call appliesTo {
  principal: Principal, resource: Tool, context: { trust: Long, project?: String, lane: String }
};
action see appliesTo { principal: Principal, resource: Tool, context: { trust: Long } };
action use appliesTo { principal: Principal, resource: Node, context: { trust: Long, project?: String } };
action grant appliesTo { principal: Principal, resource: Resource, context: { trust: Long, scope: Set<String> } };
"""
CALL, SEE, USE, GRANT = "call", "see", "use", "grant"
"""Call a tool; find it in a list; run on a node; be granted a resource by AuthGuardian."""
